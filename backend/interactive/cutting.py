"""From clicks and a box to one mask, with or without a mask to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from backend.interactive.gesture import Click, Gesture
from segzero_ml import masks
from segzero_ml.segmenter import MaskResult, Prompt
from segzero_ml.types import BoolMask, Box, ImageSize, Point

LEAST_KEPT: Final = 0.2
"""IoU below which a refined mask is another object than the one that was refined."""


@runtime_checkable
class Cuts(Protocol):
    """The part of `segzero_ml.pipeline.Pipeline` that clicks need."""

    def cut(self, image: Image.Image, prompts: Sequence[Prompt]) -> list[MaskResult]:
        """Cut a mask for each prompt, without the reasoner."""
        ...


@dataclass(frozen=True, slots=True)
class _Candidate:
    mask: BoolMask
    score: float


def cut(
    pipeline: Cuts, image: Image.Image, gesture: Gesture, base: BoolMask | None
) -> tuple[BoolMask, float]:
    """The mask that clicks and a box mean.

    With a mask to begin with there are several ways to go on: the segmenter is asked for the
    object with the clicks added, for the clicks alone, and for the part that a click outside
    means or a click inside takes away. The first answer counts that obeys all clicks and is
    still the same object; without such a one, the answer that obeys most.

    Args:
        pipeline: Cuts.
        image: Upright, any mode and size.
        gesture: At least one positive click, a box, or a mask to begin with.
        base: The mask that is refined: bool, (height, width); None for a new object.

    Returns:
        Bool, (height, width), and the segmenter's estimate of its IoU, in [0, 1].
    """
    size = ImageSize(image.width, image.height)
    points = tuple(click.in_px(size) for click in gesture.clicks)
    labels = tuple(click.is_positive for click in gesture.clicks)
    box = gesture.box_px(size)
    if base is None or not base.any():
        [found] = pipeline.cut(image, [Prompt(box, points, labels)])
        return found.mask, found.score
    candidates = _refined(pipeline, image, gesture.clicks, base, box)
    obeyed = [_obeyed(one.mask, gesture.clicks, size) for one in candidates]
    most = max(obeyed)
    for one, count in zip(candidates, obeyed, strict=True):
        if count == most and masks.iou(one.mask, base) >= LEAST_KEPT:
            return one.mask, one.score
    best = candidates[obeyed.index(most)]
    return best.mask, best.score


def _refined(
    pipeline: Cuts,
    image: Image.Image,
    clicks: Sequence[Click],
    base: BoolMask,
    drawn: Box | None,
) -> list[_Candidate]:
    """The ways to go on from a mask, the most natural one first."""
    size = ImageSize(image.width, image.height)
    points = tuple(click.in_px(size) for click in clicks)
    labels = tuple(click.is_positive for click in clicks)
    positive = tuple(p for p, is_on in zip(points, labels, strict=True) if is_on)
    negative = tuple(p for p, is_on in zip(points, labels, strict=True) if not is_on)
    missed = tuple(point for point in positive if not _is_on(base, point))
    wrong = tuple(point for point in negative if _is_on(base, point))
    inner = masks.inner_point_px(base)
    anchor = () if inner is None or inner in negative else (inner,)
    around = drawn or _around(base, positive)
    marks = (True,) * len(anchor)
    prompts = [
        Prompt(around, (*anchor, *points), (*marks, *labels)),
        Prompt(None, (*anchor, *points), (*marks, *labels)),
    ]
    if missed:
        prompts.append(
            Prompt(None, (*missed, *negative), (True,) * len(missed) + (False,) * len(negative))
        )
    if wrong:
        prompts.append(
            Prompt(None, (*wrong, *positive), (True,) * len(wrong) + (False,) * len(positive))
        )
    whole, pointed, *parts = pipeline.cut(image, prompts)
    found = [_Candidate(whole.mask, whole.score)]
    mended = base.copy()
    if missed:
        mended |= parts[0].mask
    if wrong:
        mended &= ~parts[-1].mask
    score = min(one.score for one in parts) if parts else whole.score
    found.append(_Candidate(mended, score))
    found.append(_Candidate(pointed.mask, pointed.score))
    return [one for one in found if one.mask.any()] or [_Candidate(base, whole.score)]


def _around(mask: BoolMask, points: Sequence[Point]) -> Box | None:
    box = masks.bounding_box_px(mask)
    if box is None:
        return None
    xs, ys = [point.x for point in points], [point.y for point in points]
    return Box(min([box.x1, *xs]), min([box.y1, *ys]), max([box.x2, *xs]), max([box.y2, *ys]))


def _obeyed(mask: BoolMask, clicks: Sequence[Click], size: ImageSize) -> int:
    return sum(_is_on(mask, click.in_px(size)) == click.is_positive for click in clicks)


def _is_on(mask: BoolMask, point: Point) -> bool:
    height, width = mask.shape
    row, column = min(int(point.y), height - 1), min(int(point.x), width - 1)
    return bool(np.asarray(mask)[row, column])
