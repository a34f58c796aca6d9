"""How one mask is written for each kind of control."""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image

from backend.brush import encode_rle
from backend.controls import Kind
from backend.outputs.contours import outline
from segzero_ml import masks
from segzero_ml.errors import MaskError
from segzero_ml.types import BoolMask, Box

POINT_WIDTH_PCT: Final = 0.5
"""Width of a keypoint, in percent of the image's."""

_DIGITS: Final = 6
_EMPTY: Final = Box(0, 0, 0, 0)  # of no mask that comes this far


def value(kind: Kind, mask: BoolMask) -> dict[str, Any]:
    """What the region of an object holds under `value`, without its label.

    Brush and bitmask hold the mask exactly. A polygon holds its simplified outline; holes, and
    parts that lie by themselves, are joined to it by slits. A rectangle is the box around the
    mask, a keypoint the point deepest inside it.

    Args:
        kind: Of the control.
        mask: Bool, shape (height, width), with at least one pixel.

    Raises:
        MaskError: The mask is empty or malformed.
    """
    if not mask.any():
        raise MaskError("An empty mask cannot be shown as a region.")
    return _WRITERS[kind](mask)


def _brush(mask: BoolMask) -> dict[str, Any]:
    return {"format": "rle", "rle": encode_rle(mask)}


def _bitmask(mask: BoolMask) -> dict[str, Any]:
    # As the editor draws it: black where the mask is, transparent elsewhere.
    pixels = np.zeros((*mask.shape, 2), dtype=np.uint8)
    pixels[..., 1] = np.where(mask, 255, 0)
    file = BytesIO()
    Image.fromarray(pixels).convert("RGBA").save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return {"imageDataURL": f"data:image/png;base64,{text}"}


def _polygon(mask: BoolMask) -> dict[str, Any]:
    height, width = mask.shape
    corners = outline(mask).tolist()
    return {"points": [[_pct(x, width), _pct(y, height)] for x, y in corners], "closed": True}


def _rectangle(mask: BoolMask) -> dict[str, Any]:
    height, width = mask.shape
    box = masks.bounding_box_px(mask) or _EMPTY
    return {
        "x": _pct(box.x1, width),
        "y": _pct(box.y1, height),
        "width": _pct(box.width, width),
        "height": _pct(box.height, height),
        "rotation": 0,
    }


def _keypoint(mask: BoolMask) -> dict[str, Any]:
    height, width = mask.shape
    point = masks.inner_point_px(mask) or _EMPTY.center
    return {"x": _pct(point.x, width), "y": _pct(point.y, height), "width": POINT_WIDTH_PCT}


def _pct(pixels: float, side: int) -> float:
    """Percent of a side; rounding must not lead beyond the image."""
    return min(100.0, max(0.0, round(100.0 * pixels / side, _DIGITS)))


_WRITERS: Final[dict[Kind, Callable[[BoolMask], dict[str, Any]]]] = {
    Kind.BRUSH: _brush,
    Kind.BITMASK: _bitmask,
    Kind.POLYGON: _polygon,
    Kind.RECTANGLE: _rectangle,
    Kind.KEYPOINT: _keypoint,
}
