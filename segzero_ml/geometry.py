"""Boxes and points between pixels, a model's frame and percent; frames change nowhere else.

Pixels are those of the upright original image and count edges, not centres: the whole
image is the box `(0, 0, width, height)` in every frame, so a change of frame is one
multiplication per axis. Axis order is x, y; the origin is the top left corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from segzero_ml.errors import GeometryError
from segzero_ml.types import Box, ImageSize, Point

MAX_ASPECT_RATIO = 200
"""Longer side over shorter side that the Qwen-VL processors still accept."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The coordinates a model answers in: the whole image spans 0..width and 0..height.

    Args:
        width: What the right edge of the image is called, finite and above 0.
        height: What the bottom edge of the image is called, finite and above 0.

    Raises:
        GeometryError: A side is not finite or not above 0.
    """

    width: float
    height: float

    def __post_init__(self) -> None:
        for side in (self.width, self.height):
            if not math.isfinite(side) or side <= 0:
                raise GeometryError(
                    f"A frame cannot be {self.width} x {self.height}: both sides must be above 0."
                )


_PERCENT = Frame(100.0, 100.0)


def _pixels(size: ImageSize) -> Frame:
    return Frame(float(size.width), float(size.height))


def _move_point(point: Point, source: Frame, target: Frame) -> Point:
    return Point(
        point.x * target.width / source.width,
        point.y * target.height / source.height,
    )


def _move_box(box: Box, source: Frame, target: Frame) -> Box:
    low = _move_point(Point(box.x1, box.y1), source, target)
    high = _move_point(Point(box.x2, box.y2), source, target)
    return Box(low.x, low.y, high.x, high.y)


def box_to_px(box_model: Box, frame: Frame, size: ImageSize) -> Box:
    """Turn a box of a model's frame into pixels of the original image.

    Args:
        box_model: A box in `frame`.
        frame: The frame the model answers in.
        size: Size of the upright original image.

    Returns:
        The same box in pixels, not rounded and not clipped.
    """
    return _move_box(box_model, frame, _pixels(size))


def box_from_px(box_px: Box, frame: Frame, size: ImageSize) -> Box:
    """Turn a box in pixels into a model's frame; the inverse of `box_to_px`."""
    return _move_box(box_px, _pixels(size), frame)


def point_to_px(point_model: Point, frame: Frame, size: ImageSize) -> Point:
    """Turn a point of a model's frame into pixels of the original image."""
    return _move_point(point_model, frame, _pixels(size))


def point_from_px(point_px: Point, frame: Frame, size: ImageSize) -> Point:
    """Turn a point in pixels into a model's frame; the inverse of `point_to_px`."""
    return _move_point(point_px, _pixels(size), frame)


def box_to_pct(box_px: Box, size: ImageSize) -> Box:
    """Turn a box in pixels into percent of the image's width and height."""
    return _move_box(box_px, _pixels(size), _PERCENT)


def box_from_pct(box_pct: Box, size: ImageSize) -> Box:
    """Turn a box in percent into pixels; the inverse of `box_to_pct`."""
    return _move_box(box_pct, _PERCENT, _pixels(size))


def point_to_pct(point_px: Point, size: ImageSize) -> Point:
    """Turn a point in pixels into percent of the image's width and height."""
    return _move_point(point_px, _pixels(size), _PERCENT)


def point_from_pct(point_pct: Point, size: ImageSize) -> Point:
    """Turn a point in percent into pixels; the inverse of `point_to_pct`."""
    return _move_point(point_pct, _PERCENT, _pixels(size))


def clip_box(box: Box, width: float, height: float) -> Box:
    """Cut a box to 0..width and 0..height; a box outside becomes one without area.

    Args:
        box: A box in any frame.
        width: Right edge of the same frame.
        height: Bottom edge of the same frame.
    """
    return Box(
        min(max(box.x1, 0.0), width),
        min(max(box.y1, 0.0), height),
        min(max(box.x2, 0.0), width),
        min(max(box.y2, 0.0), height),
    )


def clip_point(point: Point, width: float, height: float) -> Point:
    """Move a point to the nearest place in 0..width and 0..height."""
    return Point(min(max(point.x, 0.0), width), min(max(point.y, 0.0), height))


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes of one frame, in [0, 1].

    Two boxes without area have no union; they score 1 when they are equal, else 0.
    """
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    intersection = max(width, 0.0) * max(height, 0.0)
    union = a.area + b.area - intersection
    if union <= 0:
        return float(a == b)
    return min(intersection / union, 1.0)


def smart_resize(size: ImageSize, factor: int, min_pixels: int, max_pixels: int) -> ImageSize:
    """Size that a Qwen-VL processor gives an image: its answers are in pixels of this size.

    Both sides become multiples of `factor`, as near to the original as can be; if the area
    then leaves `min_pixels..max_pixels`, both sides are scaled alike until it fits.

    Args:
        size: Size of the upright original image.
        factor: Patch side times merge size, 28 for Qwen2.5-VL and 32 for Qwen3-VL.
        min_pixels: Least area of the result.
        max_pixels: Greatest area of the result.

    Raises:
        GeometryError: One side is more than 200 times the other, or the limits are not
            whole numbers above 0 in order.
    """
    if factor < 1 or min_pixels < 1 or max_pixels < min_pixels:
        raise GeometryError(
            f"Cannot resize with factor {factor} to {min_pixels}..{max_pixels} pixels."
        )
    sides = (size.width, size.height)
    if max(sides) > MAX_ASPECT_RATIO * min(sides):
        raise GeometryError(
            f"An image of {size.width} x {size.height} pixels is too long and thin.",
            f"The longer side may be at most {MAX_ASPECT_RATIO} times the shorter one.",
        )
    width, height = (round(side / factor) * factor for side in sides)
    if width * height > max_pixels:
        shrink = math.sqrt(size.width * size.height / max_pixels)
        width, height = (max(factor, math.floor(side / shrink / factor) * factor) for side in sides)
    elif width * height < min_pixels:
        grow = math.sqrt(min_pixels / (size.width * size.height))
        width, height = (math.ceil(side * grow / factor) * factor for side in sides)
    return ImageSize(width, height)
