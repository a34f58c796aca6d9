"""Image files and bytes become upright RGB pictures; everything odd is turned away here.

The bytes come from outside. Only six formats are tried, the size is checked before any
pixel is decoded, and whatever a decoder raises becomes an `ImageError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from segzero_ml.errors import ImageError
from segzero_ml.types import ImageSize

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""Formats that are read; of an animation or a multi-page file the first picture."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_XMP = ("xmp", "XML:com.adobe.xmp")
"""Where Pillow looks for an orientation that EXIF does not tell, and browsers do not."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may measure.

    Args:
        max_bytes: Size of the file.
        max_pixels: Width times height.
    """

    max_bytes: int = 50 * 1024 * 1024
    max_pixels: int = 50_000_000


DEFAULT_LIMITS = ImageLimits()


def decode_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Decode an image upright and in colour.

    The EXIF orientation is applied and forgotten; one that browsers do not know (in XMP, in
    the texts of a PNG, or behind its pixels) is ignored. Transparency is laid on white, CMYK,
    palette and grey become RGB. 16-bit grey keeps its scale (65535 is white); 32-bit and
    floating-point grey, which have no fixed scale, are stretched from their darkest to their
    lightest value.

    Args:
        data: The file's bytes.
        limits: What the image may measure.

    Returns:
        A loaded image of mode RGB without metadata.

    Raises:
        ImageError: Over a limit, not an image, of another format, or damaged.
    """
    _check_bytes(len(data), limits)
    with _translated("The image"), _open(BytesIO(data), "The image", limits) as image:
        orientation = _orientation(image)
        image.load()
        # Pillow turns a TIFF itself, while it loads it.
        turn = None if image.format == "TIFF" else _UPRIGHT.get(orientation)
        return _rgb(image if turn is None else image.transpose(turn))


def load_image(path: str | Path, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Read an image file; see `decode_image`.

    Raises:
        ImageError: The file is missing, cannot be read, or is not an image within the
            limits; the message names it.
    """
    path = Path(path)
    try:
        _check_file(path, limits)
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
        return decode_image(data, limits)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", error.remedy) from error


@dataclass(frozen=True, slots=True)
class FileKind:
    """What an image file is.

    Args:
        format: One of `FORMATS`.
        is_upright: Whether its pixels are stored as they are to be seen, and no metadata say
            otherwise, not even those that only some tools heed.
    """

    format: str
    is_upright: bool


def file_kind(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> FileKind:
    """What an image file is, from its header and its metadata.

    Raises:
        ImageError: As `decode_image`, except that damage in the pixels stays unseen.
    """
    _check_bytes(len(data), limits)
    with _translated("The image"), _open(BytesIO(data), "The image", limits) as image:
        return FileKind(str(image.format), _orientation(image, anywhere=True) == 1)


def read_size(path: str | Path, limits: ImageLimits = DEFAULT_LIMITS) -> ImageSize:
    """Upright size of an image file, from its header alone.

    Raises:
        ImageError: As `load_image`, except that damage in the pixels stays unseen.
    """
    path = Path(path)
    try:
        _check_file(path, limits)
        with (
            path.open("rb") as file,
            _translated(str(path)),
            _open(file, str(path), limits) as image,
        ):
            width, height = image.size
            # Pillow reports a TIFF's upright size; of other formats the stored one.
            if image.format != "TIFF" and _orientation(image) >= 5:
                width, height = height, width
            return ImageSize(width, height)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _check_file(path: Path, limits: ImageLimits) -> None:
    status = path.stat()
    if not path.is_file():
        raise ImageError(f"{path} is not a file.")
    _check_bytes(status.st_size, limits)


def _check_bytes(size: int, limits: ImageLimits) -> None:
    if size > limits.max_bytes:
        mebibytes, rest = divmod(limits.max_bytes, 2**20)
        limit = f"{limits.max_bytes:,} bytes" if rest else f"{mebibytes:,} MiB"
        raise ImageError(
            f"The image is larger than the limit of {limit}.",
            "Save it smaller, or raise the limit.",
        )


def _too_many_pixels(what: str, limits: ImageLimits) -> ImageError:
    return ImageError(
        f"{what} is over the limit of {limits.max_pixels:,} pixels.",
        "Scale it down, or raise the limit.",
    )


def _open(file: IO[bytes], what: str, limits: ImageLimits) -> Image.Image:
    """Read the header and check the size; no pixel is decoded yet."""
    try:
        image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(what, limits) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{what} is not an image, or of a format that is not supported.",
            f"Supported are {', '.join(FORMATS)}.",
        ) from error
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{what} has no pixels.")
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{what} ({width} x {height})", limits)
    return image


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    # Decoders raise nearly anything on hostile bytes; all of it means the same.
    except Exception as error:
        raise ImageError(f"{what} is damaged and cannot be decoded: {error}.") from error


def _orientation(image: Image.Image, *, anywhere: bool = False) -> int:
    """EXIF orientation 1..8 in a header; an image with damaged metadata counts as upright.

    Args:
        image: Not loaded yet.
        anywhere: Take one that browsers do not know as well.
    """
    if not anywhere:
        if image.format == "PNG" and "exif" not in image.info:
            return 1  # Pillow would search behind the pixels, and in texts
        for name in _XMP:
            image.info.pop(name, None)
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - as above; the pixels are fine without metadata
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # 65535 / 257 = 255, so both ends of the scale are met.
        deep = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = _stretched(image)
    elif image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        image = Image.alpha_composite(white, opaque)
    rgb = image.convert("RGB")
    # Left in place, the orientation would be applied a second time by a later reader.
    rgb.info.clear()
    return rgb


def _stretched(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return Image.fromarray(np.rint(scaled * 255).astype(np.uint8))
