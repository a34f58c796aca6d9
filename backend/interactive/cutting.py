"""From clicks and a box to one mask, with or without a mask to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from backend.interactive.gesture import MAX_CLICKS, Click, Gesture
from segzero_ml import masks
from segzero_ml.segmenter import MaskResult, Prompt
from segzero_ml.types import BoolMask, Box, ImageSize, Point

LEAST_KEPT: Final = 0.2
"""IoU below which a refined mask is another object than the one that was refined."""

MOST_KEPT: Final = 0.95
"""Share of a mask that one which only grew has at least."""


@runtime_checkable
class Cuts(Protocol):
    """The part of `segzero_ml.pipeline.Pipeline` that clicks need."""

    def cut(self, image: Image.Image, prompts: Sequence[Prompt]) -> list[MaskResult]:
        """Cut a mask for each prompt, without the reasoner."""
        ...


@dataclass(frozen=True, slots=True)
class Base:
    """A mask to begin with.

    Args:
        mask: Bool, (height, width).
        clicks: Those that made it, as far as they are known.
        is_painted: Whether it was changed by hand.
    """

    mask: BoolMask
    clicks: tuple[Click, ...] = ()
    is_painted: bool = False


@dataclass(frozen=True, slots=True)
class _Candidate:
    mask: BoolMask
    score: float


def cut(
    pipeline: Cuts, image: Image.Image, gesture: Gesture, base: Base | None
) -> tuple[BoolMask, float]:
    """The mask that clicks and a box mean.

    With a mask to begin with there are several ways to go on: the segmenter is asked for the
    object with the clicks added, for the clicks alone, and for the part that a click outside
    means or a click inside takes away. The first answer counts that obeys all clicks and is
    still the same object; without such a one, the answer that obeys most. Clicks that only add
    take nothing away, and what was painted by hand is only mended.

    Args:
        pipeline: Cuts.
        image: Upright, any mode and size.
        gesture: At least one positive click, a box, or a mask to begin with.
        base: The mask that is refined; None for a new object.

    Returns:
        Bool, (height, width), and the segmenter's estimate of its IoU, in [0, 1].
    """
    size = ImageSize(image.width, image.height)
    box = gesture.box_px(size)
    if base is None or not base.mask.any():
        [found] = pipeline.cut(image, [_prompt(box, gesture.clicks, size)])
        return found.mask, found.score
    new = tuple(one for one in gesture.clicks if one not in base.clicks) or gesture.clicks
    clicks = _joined(base, gesture.clicks, size)
    candidates = _refined(pipeline, image, new, clicks, base, box)
    if new and all(one.is_positive for one in new):
        candidates = [one for one in candidates if _kept(one.mask, base.mask) >= MOST_KEPT]
    ranks = [
        (_obeyed(one.mask, new, size), 0 if base.is_painted else _obeyed(one.mask, clicks, size))
        for one in candidates
    ]
    best = [one for one, rank in zip(candidates, ranks, strict=True) if rank == max(ranks)]
    same = (one for one in best if masks.iou(one.mask, base.mask) >= LEAST_KEPT)
    chosen = best[0] if base.is_painted else next(same, best[0])
    return chosen.mask, chosen.score


def _joined(base: Base, clicks: Sequence[Click], size: ImageSize) -> tuple[Click, ...]:
    """The clicks with those before that still hold, in their order."""
    opposites = {Click(one.point_pct, not one.is_positive) for one in clicks}
    held = (one for one in base.clicks if one not in opposites and _obeys(base.mask, one, size))
    return tuple(dict.fromkeys((*held, *clicks)))[-MAX_CLICKS:]


def _refined(
    pipeline: Cuts,
    image: Image.Image,
    new: Sequence[Click],
    clicks: Sequence[Click],
    base: Base,
    drawn: Box | None,
) -> list[_Candidate]:
    """The ways to go on from a mask, the most natural one first; one of them only mends it.

    Args:
        pipeline: Cuts.
        image: Upright.
        new: The clicks that are new.
        clicks: These, and those before.
        base: The mask.
        drawn: A box that was drawn along, in pixels.
    """
    size = ImageSize(image.width, image.height)
    positive = [one for one in clicks if one.is_positive]
    negative = [one for one in clicks if not one.is_positive]
    unmet = [one for one in new if not _obeys(base.mask, one, size)]
    missed = [one for one in unmet if one.is_positive]
    wrong = [one for one in unmet if not one.is_positive]
    inner = masks.inner_point_px(base.mask)
    anchor = () if inner is None or inner in [one.in_px(size) for one in negative] else (inner,)
    around = drawn or _around(base.mask, [one.in_px(size) for one in positive])
    prompts = [_prompt(around, clicks, size, anchor), _prompt(None, clicks, size, anchor)]
    if missed:
        prompts.append(_prompt(None, [*missed, *negative], size))
    if wrong:
        turned = [Click(one.point_pct, not one.is_positive) for one in (*wrong, *positive)]
        prompts.append(_prompt(None, turned, size))
    whole, pointed, *parts = pipeline.cut(image, prompts)
    mended = base.mask.copy()
    if missed:
        mended |= parts[0].mask
    if wrong:
        mended &= ~parts[-1].mask
    score = min(one.score for one in parts) if parts else whole.score
    found = [
        _Candidate(whole.mask, whole.score),
        _Candidate(mended, score),
        _Candidate(pointed.mask, pointed.score),
    ]
    if base.is_painted:
        found[0], found[1] = found[1], found[0]
    return [one for one in found if one.mask.any()] or [_Candidate(base.mask, whole.score)]


def _prompt(
    box_px: Box | None, clicks: Sequence[Click], size: ImageSize, inside: tuple[Point, ...] = ()
) -> Prompt:
    points = tuple(one.in_px(size) for one in clicks)
    labels = tuple(one.is_positive for one in clicks)
    return Prompt(box_px, (*inside, *points), (*(True for _ in inside), *labels))


def _around(mask: BoolMask, points: Sequence[Point]) -> Box | None:
    box = masks.bounding_box_px(mask)
    if box is None:
        return None
    xs, ys = [point.x for point in points], [point.y for point in points]
    return Box(min([box.x1, *xs]), min([box.y1, *ys]), max([box.x2, *xs]), max([box.y2, *ys]))


def _kept(mask: BoolMask, base: BoolMask) -> float:
    """Share of a mask that another one has."""
    return np.count_nonzero(mask & base) / np.count_nonzero(base)


def _obeyed(mask: BoolMask, clicks: Sequence[Click], size: ImageSize) -> int:
    return sum(_obeys(mask, one, size) for one in clicks)


def _obeys(mask: BoolMask, click: Click, size: ImageSize) -> bool:
    point = click.in_px(size)
    row, column = min(int(point.y), size.height - 1), min(int(point.x), size.width - 1)
    return bool(mask[row, column]) == click.is_positive
