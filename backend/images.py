"""From a task's image field to an upright image."""

from __future__ import annotations

import asyncio

from PIL import Image

from backend.image_cache import Fetches
from segzero_ml.images import ImageLimits, decode_image


async def load_task_image(
    fetcher: Fetches, value: object, limits: ImageLimits, task_id: int | None = None
) -> Image.Image:
    """Fetch and decode the image that a task names.

    Args:
        fetcher: Fetches it.
        value: What the task's data holds for the image.
        limits: Largest file in bytes and largest image in pixels.
        task_id: The task's id in Label Studio, if it has one.

    Returns:
        The image, upright, mode RGB.

    Raises:
        FetchError: It cannot be fetched.
        ImageError: It is not an image, damaged, unsupported, or over a limit.
    """
    data = await fetcher.fetch(value, task_id)
    return await asyncio.to_thread(decode_image, data, limits)
