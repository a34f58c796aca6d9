r"""What an answer is worth, measured against a person's correction: pure functions.

The corrected *mask* is the target, as that is what people correct; box and point terms only
shape the way there, and the form of the answer counts little. With $n$ objects answered and
$m$ true ones, paired one to one so that the sum of mask and box IoU is greatest (Hungarian
method), a term of pairs is

$$ R = \frac{1}{\max(n, m)} \sum_{(i, j)} r(i, j), \qquad R = 1 \text{ if } n = m = 0 $$

so that objects too many, doubled or missing all cost, and "nothing here" is worth full marks
where it is true. The form follows the rewards of Seg-Zero (arXiv 2503.06520, section 3.3) and
VisionReasoner, which compare boxes and points by thresholds and no masks.

A bad answer is data: it scores 0. Corrupt truth is an error: it raises when `Truth` is built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from segzero_ml import masks, rles
from segzero_ml.answer import AnswerSchema, format_is_strict
from segzero_ml.errors import ConfigError, DatasetError, MaskError
from segzero_ml.geometry import box_iou
from segzero_ml.types import Answer, BoolMask, Box, ImageSize, Point, Rle

_KEPT_DECODED: Final = 4
"""Truths that are kept decoded."""

_RUN_OF_WORDS: Final = 12
"""Words in a row that a text says again only when it goes round in circles."""


@dataclass(frozen=True, slots=True)
class RewardWeights:
    """How much each part counts; their sum does not matter.

    Args:
        mask: IoU of SAM 2's masks with the corrected ones.
        box: IoU of the boxes.
        point: Points inside the true masks, near their middle.
        format: The answer is in the strict form, after thoughts that are not empty.
        no_repetition: The text does not go round in circles.
        length: The text is no longer than it may be.

    Raises:
        ConfigError: A weight is negative or not finite, or the mask does not count most.
    """

    mask: float = 1.0
    box: float = 0.3
    point: float = 0.1
    format: float = 0.1
    no_repetition: float = 0.05
    length: float = 0.05

    def __post_init__(self) -> None:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if not all(math.isfinite(value) and value >= 0 for value in values.values()):
            raise ConfigError("Every reward weight must be a number of 0 or more.")
        if self.mask <= max(value for name, value in values.items() if name != "mask"):
            raise ConfigError(
                "The mask must weigh more than any other reward.",
                "A model that earns more by form than by masks learns form.",
            )


@dataclass(frozen=True, slots=True)
class RewardParts:
    """What an answer earned, each in [0, 1].

    Args:
        mask, box, point, format, no_repetition, length: See `RewardWeights`.
        total: Their weighted mean; 0 for an answer that cannot be read.
    """

    mask: float
    box: float
    point: float
    format: float
    no_repetition: float
    length: float
    total: float


NOTHING: Final = RewardParts(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Truth:
    """What is true for one request on one image: the corrected masks.

    Args:
        size: The upright original image's.
        rles: One mask per object; none means that nothing matches.

    Raises:
        DatasetError: A mask is malformed, empty or of another size.
    """

    size: ImageSize
    rles: tuple[Rle, ...]

    def __post_init__(self) -> None:
        for rle in self.rles:
            if (rle.width, rle.height) != (self.size.width, self.size.height):
                raise DatasetError("A true mask is not of its image's size.")
        try:
            empty = not all(mask.any() for mask in self.masks)
        except MaskError as error:
            raise DatasetError(f"A true mask is malformed: {error.message}") from error
        if empty:
            raise DatasetError("A true mask is empty: nothing could ever match it.")

    @property
    def masks(self) -> tuple[BoolMask, ...]:
        """bool, each (height, width)."""
        return _decoded(self.rles)

    @property
    def boxes_px(self) -> tuple[Box, ...]:
        """Tight boxes of the masks."""
        return _boxes_px(self.rles)

    @property
    def inner_points_px(self) -> tuple[Point, ...]:
        """Of each mask the point that is furthest from its edge."""
        return _inner_points_px(self.rles)


# A round has hundreds of truths of many megapixels, and looks at one after the other: the last
# ones alone are kept decoded.
@lru_cache(maxsize=_KEPT_DECODED)
def _decoded(of: tuple[Rle, ...]) -> tuple[BoolMask, ...]:
    return tuple(masks.decode(rle) for rle in of)


@lru_cache(maxsize=_KEPT_DECODED)
def _boxes_px(of: tuple[Rle, ...]) -> tuple[Box, ...]:
    return tuple(box for mask in _decoded(of) if (box := masks.bounding_box_px(mask)))


@lru_cache(maxsize=_KEPT_DECODED)
def _inner_points_px(of: tuple[Rle, ...]) -> tuple[Point, ...]:
    return tuple(point for mask in _decoded(of) if (point := masks.inner_point_px(mask)))


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer of the reasoner, as far as rewards look at it.

    Args:
        text: As the model wrote it.
        answer: Read from it, boxes and points in pixels of the original image.
        masks: What SAM 2 cut for each object of the answer; None where it cut nothing.
    """

    text: str
    answer: Answer
    masks: tuple[Rle | None, ...]


def score(
    rollout: Rollout,
    truth: Truth,
    schema: AnswerSchema,
    weights: RewardWeights,
    longest_words: int = 256,
) -> RewardParts:
    """All rewards of one answer.

    Args:
        rollout: The answer.
        truth: What it should have been.
        schema: The form that was asked for.
        weights: How the parts count in the total.
        longest_words: Words that a text may have before its length costs.
    """
    if rollout.answer.problem is not None:
        return NOTHING
    pairs = paired(rollout, truth)
    parts = {
        "mask": mask_reward(rollout, truth, pairs),
        "box": box_reward(rollout, truth, pairs),
        "point": point_reward(rollout, truth, pairs),
        "format": format_reward(rollout.text, rollout.answer, schema),
        "no_repetition": no_repetition_reward(rollout.text),
        "length": length_reward(rollout.text, longest_words),
    }
    shares = {name: getattr(weights, name) for name in parts}
    total = sum(shares[name] * value for name, value in parts.items()) / sum(shares.values())
    return RewardParts(total=total, **parts)


Pairs = tuple[tuple[int, int], ...]
"""(index of an answered object, index of the true one it is compared with)."""


def paired(rollout: Rollout, truth: Truth) -> Pairs:
    """Pairs answered with true objects so that the sum of mask and box IoU is greatest."""
    if not rollout.answer.objects or not truth.rles:
        return ()
    likeness = _mask_ious(rollout, truth) + _box_ious(rollout, truth)
    rows, columns = linear_sum_assignment(likeness, maximize=True)
    return tuple((int(i), int(j)) for i, j in zip(rows, columns, strict=True))


def mask_reward(rollout: Rollout, truth: Truth, pairs: Pairs) -> float:
    """Mean IoU of the masks over pairs, in [0, 1]; dense, not a threshold."""
    overlaps = _mask_ious(rollout, truth)
    return _mean([float(overlaps[pair]) for pair in pairs], rollout, truth)


def box_reward(rollout: Rollout, truth: Truth, pairs: Pairs) -> float:
    """Mean IoU of the boxes over pairs, in [0, 1]."""
    overlaps = _box_ious(rollout, truth)
    return _mean([float(overlaps[pair]) for pair in pairs], rollout, truth)


def point_reward(rollout: Rollout, truth: Truth, pairs: Pairs) -> float:
    """How well points lie inside the true masks, mean over pairs, in [0, 1].

    A point outside the true mask is worth nothing, whatever box was answered. Inside it is
    worth 1 at the mask's innermost point and 1/2 from half the side of a square of the
    mask's area away: distances are relative to the object.
    """
    worth = []
    for i, j in pairs:
        points = rollout.answer.objects[i].points
        each = [_point_worth(point, j, truth) for point in points]
        worth.append(sum(each) / len(each) if each else 0.0)
    return _mean(worth, rollout, truth)


def format_reward(text: str, answer: Answer, schema: AnswerSchema) -> float:
    """1 for the strict form with thoughts that say something, else 0."""
    return float(bool(answer.reasoning.strip()) and format_is_strict(text, schema))


def no_repetition_reward(text: str) -> float:
    """Share of the runs of 12 words that are said for the first time, in [0, 1]."""
    words = re.findall(r"\w+", text.lower())
    runs = [tuple(words[i : i + _RUN_OF_WORDS]) for i in range(len(words) - _RUN_OF_WORDS + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def length_reward(text: str, longest_words: int) -> float:
    """1 up to the ceiling, falling to 0 at twice as many words."""
    return min(1.0, max(0.0, 2 - len(text.split()) / longest_words))


def _mean(values: Sequence[float], rollout: Rollout, truth: Truth) -> float:
    count = max(len(rollout.answer.objects), len(truth.rles))
    return sum(values) / count if count else 1.0


def _mask_ious(rollout: Rollout, truth: Truth) -> NDArray[np.float64]:
    overlaps = np.zeros((len(rollout.masks), len(truth.rles)))
    cut = [i for i, rle in enumerate(rollout.masks) if rle is not None]
    found = [rle for rle in rollout.masks if rle is not None]
    if found and truth.rles:
        overlaps[cut] = rles.ious(found, truth.rles)
    return overlaps


def _box_ious(rollout: Rollout, truth: Truth) -> NDArray[np.float64]:
    answered = [one.box for one in rollout.answer.objects]
    found = [[box_iou(a, b) for b in truth.boxes_px] for a in answered]
    return np.asarray(found, dtype=np.float64).reshape(len(answered), len(truth.boxes_px))


def _point_worth(point: Point, which: int, truth: Truth) -> float:
    row, column = math.floor(point.y), math.floor(point.x)
    mask = truth.masks[which]
    if not (0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and mask[row, column]):
        return 0.0
    inner = truth.inner_points_px[which]
    away = math.dist((point.x, point.y), (inner.x, inner.y))
    return 1 - 0.5 * min(1.0, away / (0.5 * math.sqrt(mask.sum())))
