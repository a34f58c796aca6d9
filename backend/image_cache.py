"""Images of tasks, fetched once and kept on disk for the next request about them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

from backend.disk_cache import DiskCache, Kept
from backend.fetch import ImageFetcher
from backend.image_urls import is_in_cloud, is_upload
from backend.settings import Settings

FRESH_S: Final = 120.0
"""For so long an image is not asked for again; uploads of Label Studio, which never change under
their name, for as long as they are kept."""


class Fetches(Protocol):
    """Gives the file that a task's image field names; see `backend.fetch.ImageFetcher`."""

    async def fetch(self, value: object, task_id: int | None = None) -> bytes:
        """The bytes of the image."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


def cache_folder(settings: Settings) -> Path:
    """Where the images lie; may be deleted at any time."""
    return settings.data_dir.absolute() / "cache" / "images"


class CachedFetcher:
    """An `ImageFetcher` that remembers.

    Args:
        fetcher: Fetches what is not there, or not fresh.
        settings: How much is kept, and where.
        fresh_s: For how long an image that may change is used as it is.
    """

    def __init__(self, fetcher: ImageFetcher, settings: Settings, fresh_s: float = FRESH_S) -> None:
        self._fetcher = fetcher
        self._settings = settings
        self._fresh_s = fresh_s
        most = settings.image_cache_bytes
        self._cache = DiskCache(cache_folder(settings), most) if most else None

    async def fetch(self, value: object, task_id: int | None = None) -> bytes:
        """The bytes of the image that a task names; see `ImageFetcher.fetch`."""
        if self._cache is None or not isinstance(value, str) or value.startswith("data:"):
            return await self._fetcher.fetch(value, task_id)
        key = f"{self._settings.label_studio_url}\n{value.strip()}"
        if is_in_cloud(value):
            key += f"\n{task_id}"  # another project may have another storage of that name
        found = await asyncio.to_thread(self._cache.get, key)
        if found is not None and self._is_usable(value, found):
            return found.data
        data = await self._fetcher.fetch(value, task_id)
        await asyncio.to_thread(self._cache.put, key, data)
        return data

    def _is_usable(self, value: str, found: Kept) -> bool:
        # The limit may have been lowered since.
        is_fresh = is_upload(value) or 0 <= found.age_s < self._fresh_s
        return is_fresh and len(found.data) <= self._settings.max_image_bytes

    async def aclose(self) -> None:
        """Close the connections."""
        await self._fetcher.aclose()
