"""The size and the hash of a task's image: fetched once, then remembered in Redis.

Redis keys: `segzero:image-facts:{SHA-256 of Label Studio's name and the image's reference}`, a
string: `[width, height, SHA-256]` as JSON for a day, or empty for a minute where the image
could not be had.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any, Final

import httpx
from redis import Redis

from backend.addresses import Resolver
from backend.annotations import ImageFacts
from backend.fetch import ImageFetcher
from backend.labelling import Labelling
from backend.settings import Settings
from segzero_ml.errors import FetchError, ImageError, InputError, LabelStudioError
from segzero_ml.images import ImageLimits, decode_image
from segzero_ml.types import ImageSize
from training_hooks.redis_client import redis_errors

_log = logging.getLogger(__name__)

_KEPT_S: Final = 24 * 3600
_MISSING_S: Final = 60


class ImageLookup:
    """Finds out about images, as a `backend.reconcile.compare.ImageOf` does.

    Args:
        settings: Limits, Label Studio's address and token, allowed hosts.
        redis: Where what was found is remembered.
        transport: Where images are fetched from instead of the network.
        resolver: Looks up the hosts of images; None for the system's.
    """

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._transport = transport
        self._resolver = resolver

    def __call__(self, task: Mapping[str, Any], labelling: Labelling) -> ImageFacts | None:
        """What is known of a task's image; None where it cannot be had now.

        Not to be called where an event loop runs.

        Raises:
            StoreError: Redis does not answer.
        """
        data = task.get("data")
        value = data.get(labelling.image_field) if isinstance(data, Mapping) else None
        if not isinstance(value, str) or not value.strip():
            return None
        key = self._key(value)
        with redis_errors("reading what is known of an image"):
            known: Any = self._redis.get(key)
        if known is not None:
            return _read(known)
        facts = self._look(value, task.get("id"))
        kept = "" if facts is None else json.dumps([*_sides(facts.size), facts.sha256])
        with redis_errors("remembering an image"):
            self._redis.set(key, kept, ex=_MISSING_S if facts is None else _KEPT_S)
        return facts

    def _look(self, value: str, task_id: object) -> ImageFacts | None:
        number = task_id if isinstance(task_id, int) else None
        limits = ImageLimits(self._settings.max_image_bytes, self._settings.max_image_pixels)
        try:
            file = asyncio.run(self._fetch(value, number))
            width, height = decode_image(file, limits).size
            return ImageFacts(ImageSize(width, height), hashlib.sha256(file).hexdigest())
        except (FetchError, ImageError, LabelStudioError) as error:
            # A correction counts without its image; training will ask for it again.
            _log.warning("The image of task %s cannot be had: %s", number, error)
            return None

    async def _fetch(self, value: str, task_id: int | None) -> bytes:
        fetcher = ImageFetcher(self._settings, transport=self._transport, resolver=self._resolver)
        try:
            return await fetcher.fetch(value, task_id)
        finally:
            await fetcher.aclose()

    def _key(self, value: str) -> str:
        where = f"{self._settings.label_studio_name}\n{value}".encode("utf-8", "replace")
        return f"segzero:image-facts:{hashlib.sha256(where).hexdigest()}"


def _sides(size: ImageSize) -> tuple[int, int]:
    return size.width, size.height


def _read(known: bytes) -> ImageFacts | None:
    if not known:
        return None
    try:
        width, height, sha256 = json.loads(known)
        return ImageFacts(ImageSize(width, height), sha256)
    except (ValueError, TypeError, InputError):
        return None
