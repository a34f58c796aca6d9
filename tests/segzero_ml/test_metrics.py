"""gIoU, cIoU, N-acc and the worth of the score, against cases worked by hand."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from segzero_ml.errors import MaskError
from segzero_ml.metrics import (
    LISA,
    Overlap,
    SampleResult,
    auroc,
    compare,
    spearman,
    summarise,
)
from segzero_ml.types import BoolMask

# Six pixels in a row each; the true mask of the first case is the left half.
LEFT = np.array([[1, 1, 1, 0, 0, 0]], dtype=bool)
MIDDLE = np.array([[0, 1, 1, 1, 0, 0]], dtype=bool)
EMPTY = np.zeros((1, 6), dtype=bool)


def _result(
    pred: BoolMask, true: BoolMask, *, kind: str = "", score: float = 0.5, error: bool = False
) -> SampleResult:
    overlap = compare(pred, true)
    return SampleResult(
        intersection=overlap.intersection,
        union=overlap.union,
        iou=overlap.iou,
        kind=kind,
        has_target=bool(true.any()),
        predicted_empty=not pred.any(),
        format_error=error,
        score=score,
    )


def test_overlap_of_a_case_worked_by_hand() -> None:
    assert compare(MIDDLE, LEFT) == Overlap(2, 4, 0.5)
    assert compare(LEFT, LEFT) == Overlap(3, 3, 1.0)
    assert compare(EMPTY, LEFT) == Overlap(0, 3, 0.0)
    assert compare(LEFT, EMPTY) == Overlap(0, 3, 0.0)


def test_empty_on_empty_is_one() -> None:
    assert compare(EMPTY, EMPTY) == Overlap(0, 0, 1.0)


def test_ignored_pixels_count_in_neither_mask() -> None:
    ignore = np.array([[0, 0, 1, 1, 0, 0]], dtype=bool)
    # Of the middle remains pixel 1, of the left half pixels 0 and 1.
    assert compare(MIDDLE, LEFT, ignore) == Overlap(1, 2, 0.5)
    # All that was predicted is ignored, and there is no target: nothing was predicted.
    assert compare(ignore, EMPTY, ignore) == Overlap(0, 0, 1.0)


def test_comparing_leaves_the_masks_alone() -> None:
    pred, true, ignore = MIDDLE.copy(), LEFT.copy(), LEFT.copy()
    compare(pred, true, ignore)
    assert (pred == MIDDLE).all()
    assert (true == LEFT).all()
    assert (ignore == LEFT).all()


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(MaskError, match="do not match"):
        compare(LEFT, LEFT.T)
    with pytest.raises(MaskError, match="do not match"):
        compare(LEFT, LEFT, np.zeros((1, 1), dtype=bool))


def test_the_report_of_a_case_worked_by_hand() -> None:
    report = summarise(
        [
            _result(MIDDLE, LEFT, kind="plain", score=0.2),  # 2 of 4
            _result(LEFT, LEFT, kind="plain", score=0.9),  # 3 of 3
            _result(EMPTY, LEFT, kind="hard", score=0.1, error=True),  # 0 of 3
            _result(EMPTY, EMPTY, kind="absent", score=0.8),  # 0 of 0: 1
            _result(MIDDLE, EMPTY, kind="absent", score=0.3),  # 0 of 3
        ]
    )
    assert report["gIoU"] == pytest.approx((0.5 + 1 + 0 + 1 + 0) / 5)
    assert report["gIoU_with_target"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert report["cIoU"] == pytest.approx((2 + 3) / (4 + 3 + 3 + 0 + 3))
    assert report["n_acc"] == 0.5
    assert report["format_errors"] == 0.2
    assert report["samples"] == 5
    assert report["convention"] == LISA
    # Good ones score 0.9 and 0.8, all others less.
    assert report["score_auroc"] == 1.0
    assert list(report["by_kind"]) == ["absent", "hard", "plain"]
    assert report["by_kind"]["plain"] == {
        "gIoU": 0.75,
        "cIoU": pytest.approx(5 / 7),
        "gIoU_with_target": 0.75,
        "n_acc": None,
        "format_errors": 0.0,
        "failures": 0.0,
        "samples": 2,
    }
    assert report["by_kind"]["absent"]["gIoU_with_target"] is None
    json.dumps(report, allow_nan=False)


def test_unreadable_text_is_not_counted_as_a_right_nothing() -> None:
    report = summarise([_result(EMPTY, EMPTY, error=True), _result(EMPTY, EMPTY)])
    assert report["n_acc"] == 0.5
    assert report["gIoU"] == 0.5


def test_a_request_that_failed_is_not_counted_as_a_right_nothing() -> None:
    failed = dataclasses.replace(_result(EMPTY, EMPTY), failed=True)
    report = summarise([failed, _result(EMPTY, EMPTY)])
    assert report["n_acc"] == 0.5
    assert report["gIoU"] == 0.5
    assert (report["failures"], report["format_errors"]) == (0.5, 0.0)


def test_without_samples_no_figure_is_defined() -> None:
    report = summarise([])
    assert report["samples"] == 0
    assert report["by_kind"] == {}
    undefined = ("gIoU", "cIoU", "n_acc", "format_errors", "score_spearman", "score_auroc")
    assert all(report[key] is None for key in undefined)


def test_the_order_of_samples_does_not_matter() -> None:
    results = [_result(MIDDLE, LEFT, score=s) for s in (0.1, 0.4)] + [_result(LEFT, LEFT)]
    assert summarise(results) == summarise(reversed(results))


def test_a_score_that_ranks_by_iou_is_told_from_one_that_does_not() -> None:
    base = _result(LEFT, LEFT)
    right = [replace(base, iou=iou, score=iou / 2) for iou in (0.1, 0.5, 0.8, 0.9)]
    wrong = [replace(base, iou=iou, score=1 - iou) for iou in (0.1, 0.5, 0.8, 0.9)]
    assert (summarise(right)["score_spearman"], summarise(right)["score_auroc"]) == (1.0, 1.0)
    assert (summarise(wrong)["score_spearman"], summarise(wrong)["score_auroc"]) == (-1.0, 0.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_the_rank_correlation_agrees_with_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=np.float64).T
    found = spearman(a, b)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20))
def test_auroc_is_the_share_of_pairs_in_the_right_order(pairs: list[tuple[int, bool]]) -> None:
    good = [score for score, is_good in pairs if is_good]
    bad = [score for score, is_good in pairs if not is_good]
    found = auroc(
        np.array([score for score, _ in pairs], dtype=np.float64),
        np.array([is_good for _, is_good in pairs]),
    )
    if not good or not bad:
        assert found is None
    else:
        wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
        assert found == pytest.approx(wins / (len(good) * len(bad)))
