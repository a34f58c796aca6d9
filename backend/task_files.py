"""The image of a correction, fetched anew and checked to be the one that was annotated."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from PIL import Image

from backend.fetch import ImageFetcher
from backend.settings import Settings
from segzero_ml.corrections import Correction
from segzero_ml.errors import FetchError, ImageError
from segzero_ml.images import ImageLimits, decode_image
from segzero_ml.types import ImageSize

INLINE: Final = "inline:"
"""How a correction refers to an image that the task itself holds; see `backend.annotations`."""


class ChangedImageError(ImageError):
    """The file is not the one that was annotated."""


async def fetch_image_file(fetcher: ImageFetcher, correction: Correction) -> bytes:
    """The file of a correction's image.

    Args:
        fetcher: Fetches it.
        correction: It names the image, and its hash where that is known.

    Raises:
        FetchError: It cannot be fetched; the message says why.
        ForbiddenAddressError: It lies on a private network.
        ChangedImageError: Its content is not what was annotated.
        ImageError: It is over the limit of bytes.
        LabelStudioError: The token could not be exchanged.
    """
    if correction.image.startswith(INLINE):
        raise FetchError(
            "The image is part of its task's data, and only its hash is kept here.",
            "Import such images as files.",
        )
    file = await fetcher.fetch(correction.image, correction.task)
    expected = correction.image_sha256
    if expected is not None and hashlib.sha256(file).hexdigest() != expected:
        raise ChangedImageError(
            "The image has changed since it was annotated: its file has another hash.",
            "Annotate the task anew, or bring the former file back.",
        )
    return file


async def load_image_of(
    fetcher: ImageFetcher, correction: Correction, settings: Settings
) -> Image.Image:
    """A correction's image, upright, mode RGB, of the size of its masks.

    Args:
        fetcher: Fetches it.
        correction: It names the image.
        settings: What it may measure.

    Raises:
        FetchError, ImageError, LabelStudioError: As `fetch_image_file`, or it is damaged or
            of another size.
    """
    file = await fetch_image_file(fetcher, correction)
    limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
    image = await asyncio.to_thread(decode_image, file, limits)
    check_size(correction, ImageSize(*image.size))
    return image


def check_size(correction: Correction, size: ImageSize) -> None:
    """Refuse an image that the masks do not fit.

    Raises:
        ChangedImageError: It is of another size.
    """
    if correction.size not in (None, size):
        raise ChangedImageError(
            "The image has changed since it was annotated: it is of another size.",
            "Annotate the task anew, or bring the former file back.",
        )
