"""Takes a project's snapshot: corrections from the store, images from where tasks have them."""

from __future__ import annotations

import asyncio
import hashlib

import httpx

from backend.fetch import ImageFetcher
from backend.intake.studio import Studio
from backend.learning.facts import snapshot_options
from backend.learning.folders import snapshots_folder
from backend.settings import Settings
from backend.task_files import INLINE, fetch_image_file
from segzero_ml.corrections import Correction
from segzero_ml.errors import FetchError
from segzero_ml.images import ImageLimits
from training_hooks.loop_reader import LoopReader
from training_hooks.snapshot import Snapshot, build_snapshot
from training_hooks.store_values import ProjectKey


def take_snapshot(
    reader: LoopReader,
    project: ProjectKey,
    settings: Settings,
    mark: int,
    *,
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
        transport: How Label Studio is asked for images that are part of a task; None for the
            network.

    Raises:
        ConfigError: The shares leave nothing for new corrections.
        DatasetError: A true mask is corrupt, or the disk does not take the snapshot.
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
                fetch,
                snapshots_folder(settings, project.project),
                snapshot_options(settings, mark),
                news,
                limits,
            )
        finally:
            runner.run(fetcher.aclose())


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
