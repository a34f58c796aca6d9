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
from backend.outputs.contours import outlines
from segzero_ml import masks
from segzero_ml.errors import MaskError
from segzero_ml.types import BoolMask

POINT_WIDTH_PCT: Final = 0.5
"""Width of a keypoint, in percent of the image's."""

_DIGITS: Final = 6


def values(kind: Kind, mask: BoolMask) -> list[dict[str, Any]]:
    """What the regions of one object hold under `value`, without their label.

    Brush and bitmask hold the mask exactly. A polygon holds its simplified outline, one for
    each part that lies by itself; a hole is joined to the outline by a slit, so that it stays
    a hole. A rectangle is the box around the mask, a keypoint the point deepest inside it.

    Args:
        kind: Of the control.
        mask: Bool, shape (height, width), with at least one pixel.

    Returns:
        One value, or for a polygon one for each part, the largest first.

    Raises:
        MaskError: The mask is empty or malformed.
    """
    if not mask.any():
        raise MaskError("An empty mask cannot be shown as a region.")
    return _WRITERS[kind](mask)


def _brush(mask: BoolMask) -> list[dict[str, Any]]:
    return [{"format": "rle", "rle": encode_rle(mask)}]


def _bitmask(mask: BoolMask) -> list[dict[str, Any]]:
    # As the editor draws it: black where the mask is, transparent elsewhere.
    pixels = np.zeros((*mask.shape, 2), dtype=np.uint8)
    pixels[..., 1] = np.where(mask, 255, 0)
    file = BytesIO()
    Image.fromarray(pixels).convert("RGBA").save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return [{"imageDataURL": f"data:image/png;base64,{text}"}]


def _polygon(mask: BoolMask) -> list[dict[str, Any]]:
    height, width = mask.shape
    return [
        {
            "points": [[_pct(x, width), _pct(y, height)] for x, y in outline.tolist()],
            "closed": True,
        }
        for outline in outlines(mask)
    ]


def _rectangle(mask: BoolMask) -> list[dict[str, Any]]:
    height, width = mask.shape
    box = masks.bounding_box_px(mask)
    if box is None:
        return []
    return [
        {
            "x": _pct(box.x1, width),
            "y": _pct(box.y1, height),
            "width": _pct(box.width, width),
            "height": _pct(box.height, height),
            "rotation": 0,
        }
    ]


def _keypoint(mask: BoolMask) -> list[dict[str, Any]]:
    height, width = mask.shape
    point = masks.inner_point_px(mask)
    if point is None:
        return []
    return [{"x": _pct(point.x, width), "y": _pct(point.y, height), "width": POINT_WIDTH_PCT}]


def _pct(pixels: float, side: int) -> float:
    """Percent of a side; rounding must not lead beyond the image."""
    return min(100.0, max(0.0, round(100.0 * pixels / side, _DIGITS)))


_WRITERS: Final[dict[Kind, Callable[[BoolMask], list[dict[str, Any]]]]] = {
    Kind.BRUSH: _brush,
    Kind.BITMASK: _bitmask,
    Kind.POLYGON: _polygon,
    Kind.RECTANGLE: _rectangle,
    Kind.KEYPOINT: _keypoint,
}
