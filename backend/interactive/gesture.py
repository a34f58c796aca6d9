"""What an annotator just did, from the regions that Label Studio sends along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backend.labelling import Labelling
from backend.shapes import Rectangle
from segzero_ml.types import Box, ImageSize, Point

MAX_CLICKS: Final = 64
"""Clicks of one object that are used, the last ones."""

_PERCENT: Final = 100.0


@dataclass(frozen=True, slots=True)
class Click:
    """A click: where, and whether it is on the object or beside it."""

    point_pct: Point
    is_positive: bool = True

    def in_px(self, size: ImageSize) -> Point:
        """The point in pixels of the upright original image."""
        return Point(
            self.point_pct.x * size.width / _PERCENT, self.point_pct.y * size.height / _PERCENT
        )


@dataclass(frozen=True, slots=True)
class Gesture:
    """Clicks and a box that mean one object.

    Args:
        clicks: In their order.
        box: The box drawn last, or None.
        label: The label that they were made with; empty where it says none.
    """

    clicks: tuple[Click, ...] = ()
    box: Rectangle | None = None
    label: str = ""

    def box_px(self, size: ImageSize) -> Box | None:
        """The upright box around it, cut to the picture, in pixels; None where that is empty."""
        if self.box is None:
            return None
        corners = self.box.corners_px(size).clip(0, (size.width, size.height))
        (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        return Box(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


@dataclass(frozen=True, slots=True)
class TextBox:
    """What a TextArea holds.

    Args:
        id: Label Studio gives each annotator's box one, anew when it was emptied.
        lines: In the order in which they were typed.
    """

    id: str = ""
    lines: tuple[str, ...] = ()

    def begins_with(self, other: TextBox) -> bool:
        """Whether it is the same box and has all lines that the other has, in their order."""
        is_same = self.id != "" and self.id == other.id
        return is_same and self.lines[: len(other.lines)] == other.lines


def read_gesture(results: Sequence[Mapping[str, Any]], labelling: Labelling) -> Gesture | None:
    """The clicks and the box of a call's context, or None without any.

    Whatever has no sensible place is left out: a click outside of the picture, a coordinate
    that is no number.
    """
    clicks: list[Click] = []
    box: Rectangle | None = None
    label = ""
    for result in results:
        value = result.get("value")
        if result.get("to_name") != labelling.image or not isinstance(value, Mapping):
            continue
        kind = result.get("type")
        if kind in ("keypoint", "keypointlabels"):
            point = _point(value)
            if point is not None:
                clicks.append(Click(point, result.get("is_positive") is not False))
        elif kind in ("rectangle", "rectanglelabels"):
            box = _box(value) or box
        else:
            continue
        label = _label(value) or label
    if not clicks and box is None:
        return None
    return Gesture(tuple(dict.fromkeys(clicks))[-MAX_CLICKS:], box, label)


def text_box(results: Sequence[Mapping[str, Any]], control: str | None) -> TextBox:
    """What a TextArea of a call's context holds."""
    for result in results:
        value = result.get("value")
        if control is None or result.get("from_name") != control or not isinstance(value, Mapping):
            continue
        text, box_id = value.get("text"), result.get("id")
        lines = [text] if isinstance(text, str) else text if isinstance(text, list) else []
        return TextBox(
            box_id if isinstance(box_id, str) else "",
            tuple(line for line in lines if isinstance(line, str)),
        )
    return TextBox()


def is_asked(results: Sequence[Mapping[str, Any]], labelling: Labelling) -> bool:
    """Whether something was clicked, or anything stands in the request box."""
    is_typed = any(text_box(results, labelling.prompt).lines)
    return is_typed or read_gesture(results, labelling) is not None


def _label(value: Mapping[str, Any]) -> str:
    for key in ("keypointlabels", "rectanglelabels", "labels"):
        labels = value.get(key)
        if isinstance(labels, list) and labels and isinstance(labels[0], str):
            return labels[0]
    return ""


def _point(value: Mapping[str, Any]) -> Point | None:
    x, y = _number(value.get("x")), _number(value.get("y"))
    if x is None or y is None or not (0 <= x <= _PERCENT and 0 <= y <= _PERCENT):
        return None
    return Point(x, y)


def _box(value: Mapping[str, Any]) -> Rectangle | None:
    x, y, width, height = (_number(value.get(name)) for name in ("x", "y", "width", "height"))
    if x is None or y is None or width is None or height is None:
        return None
    return Rectangle(x, y, width, height, _number(value.get("rotation")) or 0.0)


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6:
        return float(value)
    return None
