"""From the regions that people draw in Label Studio to masks of the upright original image.

Brush, bitmask, polygon, rectangle and ellipse regions become masks; a region is one object,
whatever its label. Percentages are of the image's width and height, turns are made in pixels.
Label Studio shows images upright and writes their upright size into each region; turning the
view (`image_rotation`) changes neither. Everything here may come from anywhere: what no
editor writes is refused with a `MaskError` before memory is spent on it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.brush import decode_rle
from backend.shapes import Rectangle, fill_ellipse, fill_polygon
from segzero_ml.errors import ImageError, MaskError
from segzero_ml.images import ImageLimits, decode_image
from segzero_ml.masks import MAX_MASK_PIXELS
from segzero_ml.types import BoolMask, ImageSize

MAX_POINTS: Final = 100_000
"""Corners of one polygon."""

MAX_BITMASK_BYTES: Final = 32 * 1024 * 1024
"""Size of the PNG of one bitmask."""

_MAX_PERCENT: Final = 10_000.0  # a hundred times the image; no region reaches so far out
_MAX_DEGREES: Final = 36_000.0
_MIN_ALPHA: Final = 128  # as in a brush region: at least half covered
_PNG: Final = "data:image/png;base64,"
_REMEDY: Final = "Delete the region in Label Studio and draw it again."


def is_mask_region(region: Mapping[str, Any]) -> bool:
    """Whether a result is a region that `true_mask` makes a mask of."""
    return mask_kind(region) in _READERS


def region_size(region: Mapping[str, Any]) -> ImageSize:
    """Size of the upright image that a region was drawn on.

    Raises:
        MaskError: Missing, no whole numbers, or too large.
    """
    width, height = (_pixels(region, f"original_{side}") for side in ("width", "height"))
    if width * height > MAX_MASK_PIXELS:
        raise _refused(
            f"is on an image of {width} x {height} pixels, more than {MAX_MASK_PIXELS:,}"
        )
    return ImageSize(width, height)


def true_mask(region: Mapping[str, Any], size: ImageSize) -> BoolMask:
    """Mask of one region.

    A polygon is filled as browsers fill it (non-zero rule) and closed where it is open. A
    rectangle turns around its top left corner, an ellipse around its centre, clockwise. What
    is half transparent in a brush or bitmask region counts from an alpha of 128 on.

    Args:
        region: One result of an annotation or a prediction.
        size: Size of the upright original image.

    Returns:
        bool, shape (size.height, size.width); empty where the region covers no pixel.

    Raises:
        MaskError: Of a kind that is no mask, drawn on an image of another size, or malformed.
    """
    reader = _READERS.get(mask_kind(region))
    if reader is None:
        raise _refused(f"of the kind {mask_kind(region)[:50]!r} is no mask")
    drawn_on = region_size(region)
    if drawn_on != size:
        raise _refused(
            f"is on an image of {drawn_on.width} x {drawn_on.height} pixels, "
            f"but the image is {size.width} x {size.height}"
        )
    value = region.get("value")
    if not isinstance(value, Mapping):
        raise _refused("has no value")
    return reader(value, size)


def _brush(value: Mapping[str, Any], size: ImageSize) -> BoolMask:
    return decode_rle(value.get("rle"), size.height, size.width)


def _bitmask(value: Mapping[str, Any], size: ImageSize) -> BoolMask:
    url = value.get("imageDataURL")
    if not isinstance(url, str) or not url.startswith(_PNG):
        raise _refused(f"must have an imageDataURL that starts with {_PNG}")
    if (len(url) - len(_PNG)) * 3 // 4 > MAX_BITMASK_BYTES:
        raise _refused(f"has a PNG of more than {MAX_BITMASK_BYTES:,} bytes")
    try:
        data = base64.b64decode(url[len(_PNG) :], validate=True)
        # Decoded in full first: only then is it known to be a sound image within the limits.
        decode_image(data, ImageLimits(MAX_BITMASK_BYTES, size.width * size.height))
        with Image.open(BytesIO(data), formats=["PNG"]) as image:
            drawn = ImageSize(*image.size)
            alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    except (ImageError, OSError, ValueError, binascii.Error) as error:
        raise _refused(f"has a PNG that cannot be read ({error})") from None
    if alpha is None:
        raise _refused("has a PNG without transparency, so that it covers the whole image")
    if drawn != size:
        raise _refused(f"has a PNG of {drawn.width} x {drawn.height} pixels, not the image's size")
    mask: BoolMask = np.asarray(alpha) >= _MIN_ALPHA
    return mask


def _polygon(value: Mapping[str, Any], size: ImageSize) -> BoolMask:
    points = value.get("points")
    if not isinstance(points, list) or len(points) > MAX_POINTS:
        raise _refused(f"must have a list of at most {MAX_POINTS:,} points")
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise _refused("has a point that is no pair of numbers")
        for coordinate in point:
            _checked(coordinate, "points", _MAX_PERCENT)
    corners = np.array(points, dtype=np.float64).reshape(-1, 2)
    return fill_polygon(corners * _pixels_per_percent(size), size)


def _rectangle(value: Mapping[str, Any], size: ImageSize) -> BoolMask:
    x, y, width, height = (_percent(value, name) for name in ("x", "y", "width", "height"))
    return fill_polygon(Rectangle(x, y, width, height, _degrees(value)).corners_px(size), size)


def _ellipse(value: Mapping[str, Any], size: ImageSize) -> BoolMask:
    x, y = np.array([_percent(value, "x"), _percent(value, "y")]) * _pixels_per_percent(size)
    radii = [_percent(value, name) for name in ("radiusX", "radiusY")]
    if min(radii) < 0:
        raise _refused("has a negative radius")
    side, up = np.array(radii) * _pixels_per_percent(size)
    return fill_ellipse((float(x), float(y)), (float(side), float(up)), _degrees(value), size)


_READERS: Final[dict[str, Callable[[Mapping[str, Any], ImageSize], BoolMask]]] = {
    "brush": _brush,
    "magicwand": _brush,
    "bitmask": _bitmask,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "rectangle": _rectangle,
}

MASK_KINDS: Final = tuple(_READERS)
"""Kinds of regions with a mask, the most exact first."""


def mask_kind(region: Mapping[str, Any]) -> str:
    """Kind of a region without its labels: `brush` for `brushlabels`."""
    kind = region.get("type")
    return kind.removesuffix("labels") if isinstance(kind, str) else ""


def _refused(problem: str) -> MaskError:
    return MaskError(f"A region {problem}.", _REMEDY)


def _pixels_per_percent(size: ImageSize) -> NDArray[np.float64]:
    return np.array([size.width, size.height]) / 100.0


def _pixels(region: Mapping[str, Any], name: str) -> int:
    value = region.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_MASK_PIXELS:
        raise _refused(f"has an {name} that is no number of pixels")
    return value


def _percent(value: Mapping[str, Any], name: str) -> float:
    return _checked(value.get(name), name, _MAX_PERCENT)


def _degrees(value: Mapping[str, Any]) -> float:
    rotation = value.get("rotation")
    return 0.0 if rotation is None else _checked(rotation, "rotation", _MAX_DEGREES)


def _checked(number: object, name: str, greatest: float) -> float:
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise _refused(f"has {name} that is no number")
    if not -greatest <= number <= greatest:  # NaN compares with nothing
        raise _refused(f"has {name} out of range")
    return float(number)
