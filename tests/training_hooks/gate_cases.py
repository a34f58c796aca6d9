"""Cases for the gate, made by hand and by chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from training_hooks.gate import Case


def case(number: int, iou: float, *, image: int | None = None, kind: str = "colour") -> Case:
    """A case with a target, its union 1000 pixels."""
    return Case(
        example=f"example-{number}",
        image=f"image-{number if image is None else image}",
        kind=kind,
        iou=iou,
        intersection=round(1000 * iou),
        union=1000,
        has_target=True,
        answered_nothing=False,
        format_error=False,
        seconds=0.5,
    )


def cases(ious: Iterable[float]) -> list[Case]:
    """One case on each image."""
    return [case(number, iou) for number, iou in enumerate(ious)]


def absent(number: int, right: bool) -> Case:
    """A case without a target, answered with nothing or with 100 pixels of something."""
    return Case(
        example=f"absent-{number}",
        image=f"image-absent-{number}",
        kind="absent",
        iou=float(right),
        intersection=0,
        union=0 if right else 100,
        has_target=False,
        answered_nothing=right,
        format_error=False,
        seconds=0.5,
    )


def unreadable(one: Case) -> Case:
    """The case as it is when the answer cannot be read."""
    iou = 0.0 if one.has_target else 1.0
    return replace(one, iou=iou, intersection=0, answered_nothing=True, format_error=True)


def raised(before: Sequence[Case], by: float) -> list[Case]:
    """Cases whose IoU is higher by so much."""
    return [replace(one, iou=min(1.0, one.iou + by)) for one in before]
