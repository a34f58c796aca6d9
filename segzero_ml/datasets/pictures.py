"""The picture of a sample as a file: as it came where all tools read it alike, else anew."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from segzero_ml.images import DEFAULT_LIMITS, ImageLimits, decode_image, file_kind
from segzero_ml.types import ImageSize

_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}
"""Formats that are kept; of others only the first picture is meant, or few tools read them."""

_JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file that shows the image upright whoever reads it.

    Args:
        data: The file.
        suffix: What its name must end in.
        size: Its size in pixels.
    """

    data: bytes
    suffix: str
    size: ImageSize


def prepare(data: bytes, limits: ImageLimits = DEFAULT_LIMITS, *, as_jpeg: bool = False) -> Picture:
    """Make a picture of an image file; its pixels are decoded, so that damage is found.

    A file is kept byte for byte if it is upright and of a common format. Otherwise it is
    written anew, without loss as PNG: many tools do not turn an image as its metadata say,
    and the masks are those of the upright one.

    Args:
        data: The file as it came.
        limits: What it may measure.
        as_jpeg: Only JPEG will do; what is none is compressed, with little loss.

    Raises:
        ImageError: Over a limit, not an image, of another format, or damaged.
    """
    image = decode_image(data, limits)
    kind = file_kind(data, limits)
    size = ImageSize(*image.size)
    if kind.is_upright and (kind.format == "JPEG" if as_jpeg else kind.format in _SUFFIXES):
        return Picture(data, _SUFFIXES[kind.format], size)
    if as_jpeg:
        return Picture(_written(image, "JPEG", quality=_JPEG_QUALITY, subsampling=0), ".jpg", size)
    return Picture(_written(image, "PNG"), ".png", size)


def _written(image: Image.Image, kind: str, **options: int) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
