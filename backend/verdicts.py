"""What an annotator made of what the model showed: one rule, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from backend.regions import Region
from segzero_ml import rles
from segzero_ml.corrections import Verdict

SAME_IOU: Final = 0.98
"""From this IoU on two masks are the same one: saved again, perhaps by another canvas."""

RELATED_IOU: Final = 0.5
"""From this IoU on a mask counts as made from another one, whatever is said of its origin."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of a prediction.

    Args:
        verdict: See `judge`.
        shown: What the model showed: the prediction's regions, and those that the annotator
            asked for while working and left as they came, without a click.
        edit_iou: IoU of all that was shown with all that was submitted; None where the model
            showed nothing, or where a mask was changed whose first form is not known.
    """

    verdict: Verdict
    shown: tuple[Region, ...]
    edit_iou: float | None


def judge(predicted: Sequence[Region] | None, drawn: Sequence[Region]) -> Judgement:
    """Judge what was submitted against what the model showed.

    *Shown* are the regions of the prediction that the annotation came from and, beyond it,
    submitted regions that Label Studio says come from a prediction and were not changed:
    they were asked for while working, and nothing else keeps them. *Submitted* are the
    annotation's regions. What clicks made was not shown, whatever Label Studio says: made of
    nothing it counts as drawn by hand, and made of an answer that no prediction keeps, as that
    answer changed. The first line that fits is the verdict:

    1. There was no prediction, and no submitted region comes from one: `DRAWN_BY_HAND`, or
       `NOTHING_HERE` if nothing was submitted either.
    2. Nothing was submitted: `ACCEPTED` if nothing was shown, for then the model was right;
       else `NOTHING_HERE`.
    3. Shown and submitted regions pair up, none is left over, and each pair has the same
       label and an IoU of at least 0.98: `ACCEPTED`.
    4. No submitted region is related to a shown one: `REJECTED`; all that was shown was
       deleted, or nothing was shown where something is. Related means: it has the same id,
       Label Studio says that it comes from a prediction, or the IoU is at least 0.5.
    5. `EDITED`: moved, repainted, relabelled, some deleted or some added.

    Args:
        predicted: Regions of the prediction; None where there was no prediction.
        drawn: Regions of the annotation.
    """
    known = [] if predicted is None else list(predicted)
    ids = {one.id for one in known if one.id}
    overlaps = rles.ious([one.rle for one in drawn], [one.rle for one in known])
    related = [
        bool(one.id in ids or row.max(initial=0.0) >= RELATED_IOU)
        for one, row in zip(drawn, overlaps, strict=True)
    ]
    strangers = [one for one, is_related in zip(drawn, related, strict=True) if not is_related]
    answers = [one for one in strangers if not one.is_own]
    asked_for = [one for one in answers if one.origin == "prediction" and not one.is_clicked]
    changed = [one for one in answers if one.origin == "prediction-changed" or one.is_clicked]
    shown = (*known, *asked_for)
    if predicted is None and not asked_for and not changed:
        return Judgement(Verdict.DRAWN_BY_HAND if drawn else Verdict.NOTHING_HERE, (), None)
    if not drawn:
        verdict = Verdict.NOTHING_HERE if shown else Verdict.ACCEPTED
    elif _pairs(drawn, known, overlaps) + len(asked_for) == len(drawn) == len(shown):
        verdict = Verdict.ACCEPTED
    elif not any(related) and not asked_for and not changed:
        verdict = Verdict.REJECTED
    else:
        verdict = Verdict.EDITED
    if changed:
        return Judgement(verdict, shown, None)
    iou = rles.union_iou([one.rle for one in shown], [one.rle for one in drawn])
    return Judgement(verdict, shown, iou)


def _pairs(drawn: Sequence[Region], known: Sequence[Region], overlaps: NDArray[np.float64]) -> int:
    """Greatest number of pairs of the same mask with the same label."""
    labels = np.array([[a.label == b.label for b in known] for a in drawn], dtype=np.bool_)
    same = (overlaps >= SAME_IOU) & labels.reshape(overlaps.shape)
    rows, columns = linear_sum_assignment(same, maximize=True)
    return int(np.count_nonzero(same[rows, columns]))
