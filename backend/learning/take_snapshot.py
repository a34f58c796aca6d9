"""Takes a project's snapshot: corrections from the store, images from where tasks have them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import httpx

from backend.fetch import ImageFetcher
from backend.intake.studio import Studio
from backend.learning.facts import snapshot_options
from backend.learning.folders import snapshots_folder
from backend.settings import Settings
from backend.task_files import INLINE, fetch_image_file
from segzero_ml.corrections import Correction
from segzero_ml.errors import FetchError, ImageError, ImageHostError
from segzero_ml.images import ImageLimits
from training_hooks.loop_reader import LoopReader
from training_hooks.snapshot import Snapshot, build_snapshot
from training_hooks.store_values import ProjectKey

LONGEST_WAIT_S: Final = 300.0
"""How long one place of images may keep a snapshot waiting in a row without giving any."""


def take_snapshot(
    reader: LoopReader,
    project: ProjectKey,
    settings: Settings,
    mark: int,
    between: Callable[[int, int], None] = lambda _, __: None,
    *,
    goes_without: bool = True,
    transport: httpx.BaseTransport | None = None,
) -> Snapshot:
    """Make the snapshot of all corrections that a project has now.

    Not to be called where an event loop runs. Images that an earlier snapshot had are not
    fetched again.

    Args:
        reader: The store.
        project: Which project.
        settings: Shares, limits of images, Label Studio's address and token, the data folder.
        mark: The store's, taken before: of many older corrections and accepted predictions it
            decides which are drawn, so that each round learns from others.
        between: Called before each correction is looked at, with how many are by then and how
            many there are; what it raises ends the taking there.
        goes_without: Whether it is made without new corrections whose images' hosts are away,
            as long as some new ones are left.
        transport: How Label Studio is asked for images that are part of a task; None for the
            network.

    Raises:
        ConfigError: The shares leave nothing for new corrections.
        DatasetError: A true mask is corrupt, or the disk does not take the snapshot.
        ImagesAwayError: Hosts of images are away, so that it is to be taken later.
        InputError: There is nothing to learn from; the message says why.
        LabelStudioError: Label Studio does not answer or does not take the token.
        StoreError: Redis does not answer.
    """
    limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
    corrections = list(reader.corrections(project))
    news = reader.news(project)  # after them, so that none that is new is taken for an older one
    fetcher = ImageFetcher(settings)
    with asyncio.Runner() as runner, Studio(settings, transport) as studio:

        def fetch(correction: Correction) -> bytes:
            if correction.image.startswith(INLINE) and settings.label_studio_token:
                value = _inline(correction, studio)
                return runner.run(fetcher.fetch(value, correction.task))
            return runner.run(fetch_image_file(fetcher, correction))

        try:
            return build_snapshot(
                corrections,
                Waiting(fetch),
                snapshots_folder(settings, project.project),
                snapshot_options(settings, mark),
                news,
                limits,
                between,
                goes_without=goes_without,
            )
        finally:
            runner.run(fetcher.aclose())


class Waiting:
    """Fetches, and asks no place any more that kept it waiting for too long without an image.

    A place that says at once what is wrong, or answers now and then, is asked on and on.

    Args:
        fetch: Gets the file of a correction's image.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        fetch: Callable[[Correction], bytes],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._waited_s: dict[str, float] = {}
        self._last: dict[str, ImageHostError] = {}

    def __call__(self, correction: Correction) -> bytes:
        """The file of a correction's image.

        Raises:
            SegZeroError: What fetching raises; `ImageHostError` for a place given up.
        """
        place, began = _place(correction.image), self._clock()
        if self._waited_s.get(place, 0.0) >= LONGEST_WAIT_S:
            last = self._last[place]
            raise ImageHostError(last.message, last.remedy, host=last.host)
        try:
            file = self._fetch(correction)
        except ImageHostError as error:
            self._last[place] = error
            self._waited_s[place] = self._waited_s.get(place, 0.0) + self._clock() - began
            raise
        except (FetchError, ImageError):  # it answered
            self._waited_s.pop(place, None)
            raise
        self._waited_s.pop(place, None)
        return file


def _place(image: str) -> str:
    """What is away as a whole: a host, a bucket, or Label Studio with all its own files."""
    try:
        parts = urlsplit(image)
    except ValueError:
        return image
    return f"{parts.scheme}://{parts.netloc}"


def _inline(correction: Correction, studio: Studio) -> str:
    """An image that its task itself holds, of which the store has the hash alone.

    Raises:
        FetchError: The task is gone, or holds another one.
        LabelStudioError: Label Studio does not answer.
    """
    task = studio.task(correction.key.project, correction.task)
    data = {} if task is None else task["data"]
    for value in data.values() if isinstance(data, dict) else ():
        if isinstance(value, str) and _reference(value) == correction.image:
            return value
    raise FetchError("The image was part of its task's data, and is there no more.")


def _reference(value: str) -> str:
    """How a correction refers to an image that its task holds; see `backend.annotations`."""
    return f"{INLINE}sha256:{hashlib.sha256(value.encode('utf-8', 'replace')).hexdigest()}"
