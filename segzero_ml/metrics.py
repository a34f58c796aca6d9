"""How good predictions are: gIoU, cIoU, N-acc, and whether the score means something.

gIoU is the mean of the IoU per image and request; cIoU is all intersections over all
unions, so large objects weigh more. N-acc is the share of requests with no target that
were answered with nothing. The score's worth is its rank correlation with the IoU
(Spearman's rho), and how well it tells good masks from bad (AUROC).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segzero_ml.errors import MaskError
from segzero_ml.types import BoolMask

LISA = "LISA: ignored pixels count in neither; empty on empty is 1"
"""The convention of `compare`, to be named beside every number."""

GOOD_IOU = 0.7
"""From this IoU on a prediction counts as good in `score_auroc`."""


class Overlap(NamedTuple):
    """Overlap of a predicted and a true mask.

    Args:
        intersection: Pixels in both.
        union: Pixels in either.
        iou: In [0, 1].
    """

    intersection: int
    union: int
    iou: float


@dataclass(frozen=True, slots=True)
class SampleResult:
    """What became of one request about one image.

    Args:
        intersection: Pixels in both the predicted and the true mask.
        union: Pixels in either.
        iou: In [0, 1].
        kind: Kind of request, for the breakdown.
        has_target: Whether something in the image matches the request.
        predicted_empty: Whether no segment was predicted.
        format_error: Whether the reasoner's text could not be read as an answer.
        score: Score of the prediction, in [0, 1].
        failed: Whether there was no answer at all: the request was refused, or a model failed.
    """

    intersection: int
    union: int
    iou: float
    kind: str
    has_target: bool
    predicted_empty: bool
    format_error: bool
    score: float
    failed: bool = False


def compare(
    pred_mask: BoolMask, true_mask: BoolMask, ignore_mask: BoolMask | None = None
) -> Overlap:
    """Overlap of two masks under LISA's convention.

    Args:
        pred_mask: Bool, shape (height, width).
        true_mask: Bool, the same shape.
        ignore_mask: Bool, the same shape; True where pixels count in neither mask.

    Returns:
        Intersection, union and IoU; two masks that are both empty have IoU 1.

    Raises:
        MaskError: The shapes differ.
    """
    both = [pred_mask, true_mask] if ignore_mask is None else [pred_mask, true_mask, ignore_mask]
    if len({mask.shape for mask in both}) != 1:
        raise MaskError(f"Masks of the shapes {[mask.shape for mask in both]} do not match.")
    intersection, union = pred_mask & true_mask, pred_mask | true_mask
    if ignore_mask is not None:
        intersection, union = intersection & ~ignore_mask, union & ~ignore_mask
    shared, joined = int(np.count_nonzero(intersection)), int(np.count_nonzero(union))
    return Overlap(shared, joined, shared / joined if joined else 1.0)


def summarise(results: Iterable[SampleResult], convention: str = LISA) -> dict[str, Any]:
    """Sum up results as a JSON-ready report.

    Text that could not be read as an answer is not "nothing", and no answer is not either:
    on a request without a target both count as IoU 0 and as wrong in N-acc, though both
    masks are empty.

    Args:
        results: One per sample.
        convention: Name of the convention of `compare`.

    Returns:
        `gIoU`, `cIoU`, `gIoU_with_target` (only requests with a target), `n_acc`,
        `format_errors` and `failures` (shares), `samples`, `score_spearman`, `score_auroc`,
        `convention`, and `by_kind` with the first seven for every kind, sorted by name.
        A figure that is not defined for these results is None.
    """
    everything = list(results)
    kinds: dict[str, list[SampleResult]] = {}
    for result in everything:
        kinds.setdefault(result.kind, []).append(result)
    scores = np.array([result.score for result in everything], dtype=np.float64)
    ious = np.array([_iou(result) for result in everything], dtype=np.float64)
    return {
        **_figures(everything),
        "score_spearman": spearman(scores, ious),
        "score_auroc": auroc(scores, ious >= GOOD_IOU),
        "convention": convention,
        "by_kind": {kind: _figures(kinds[kind]) for kind in sorted(kinds)},
    }


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Rank correlation in [-1, 1], ties sharing their mean rank.

    Returns:
        None when one of the two does not vary.
    """
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.clip(np.corrcoef(_ranks(a), _ranks(b))[0, 1], -1.0, 1.0))


def auroc(scores: NDArray[np.float64], good: NDArray[np.bool_]) -> float | None:
    """Chance that a good one has a higher score than a bad one; equal scores count half.

    Returns:
        In [0, 1]; None when all are good or none is.
    """
    positives = int(np.count_nonzero(good))
    negatives = good.size - positives
    if not positives or not negatives:
        return None
    ranks = float(_ranks(scores)[good].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 in ascending order; equal values share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return mean_ranks[places]


def _iou(result: SampleResult) -> float:
    wrongly_right = _unanswered(result) and result.predicted_empty and not result.has_target
    return 0.0 if wrongly_right else result.iou


def _unanswered(result: SampleResult) -> bool:
    return result.format_error or result.failed


def _figures(results: Sequence[SampleResult]) -> dict[str, Any]:
    without_target = [result for result in results if not result.has_target]
    union = sum(result.union for result in results)
    intersection = sum(result.intersection for result in results)
    return {
        "gIoU": _mean([_iou(result) for result in results]),
        "cIoU": intersection / union if union else None,
        "gIoU_with_target": _mean([_iou(result) for result in results if result.has_target]),
        "n_acc": _mean([r.predicted_empty and not _unanswered(r) for r in without_target]),
        "format_errors": _mean([result.format_error for result in results]),
        "failures": _mean([result.failed for result in results]),
        "samples": len(results),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(sum(values) / len(values)) if values else None
