from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segzero_ml import masks
from segzero_ml.datasets import Sample
from segzero_ml.errors import MaskError
from segzero_ml.evaluate import evaluate, judge
from segzero_ml.metrics import LISA
from segzero_ml.pipeline import Pipeline
from segzero_ml.presets import Resized, get_preset
from segzero_ml.types import BoolMask, Box, ImageSize, Prediction, ProblemKind, Segment

Picture = Callable[..., Image.Image]
SIZE = ImageSize(10, 4)


def columns(start: int, stop: int) -> BoolMask:
    mask = np.zeros((SIZE.height, SIZE.width), dtype=np.bool_)
    mask[:, start:stop] = True
    return mask


def sample(*true: BoolMask, ignore: BoolMask | None = None) -> Sample:
    return Sample(lambda: Image.new("RGB", (10, 4)), "it", true, ignore, kind="k")


def prediction(*predicted: BoolMask, problem: ProblemKind | None = None) -> Prediction:
    return Prediction(
        request="it",
        size=SIZE,
        reasoning="",
        segments=tuple(Segment(Box(0, 0, 1, 1), (), masks.encode(mask), 0.5) for mask in predicted),
        score=0.5,
        model_version="v",
        problem=problem and "It failed.",
        problem_kind=problem,
    )


def test_the_union_of_the_segments_is_compared_with_the_union_of_the_truth() -> None:
    result = judge(sample(columns(0, 4), columns(6, 8)), prediction(columns(0, 2), columns(1, 3)))
    assert (result.intersection, result.union) == (12, 24)
    assert result.iou == 0.5
    assert (result.kind, result.has_target, result.predicted_empty) == ("k", True, False)


def test_ignored_pixels_count_in_neither() -> None:
    result = judge(sample(columns(0, 4), ignore=columns(3, 10)), prediction(columns(0, 8)))
    assert (result.intersection, result.union) == (12, 12)


@pytest.mark.parametrize(
    ("problem", "error", "failed"),
    [
        (None, False, False),
        (ProblemKind.UNREADABLE, True, False),
        (ProblemKind.NOTHING_CUT, False, False),
        (ProblemKind.FAILED, False, True),
    ],
)
def test_only_text_that_could_not_be_read_is_a_format_error(
    problem: ProblemKind | None, error: bool, failed: bool
) -> None:
    result = judge(sample(), prediction(problem=problem))
    assert result.format_error is error
    assert result.failed is failed
    assert result.predicted_empty
    assert not result.has_target


def test_a_truth_of_another_size_is_refused() -> None:
    with pytest.raises(MaskError, match="does not fit"):
        judge(sample(np.ones((4, 11), dtype=np.bool_)), prediction())


@pytest.fixture(scope="module")
def pipeline(taught_qwen25_dir: Path, segmenter_dir: Path) -> Pipeline:
    preset = dataclasses.replace(
        get_preset("tiny"),
        reasoner=str(taught_qwen25_dir),
        segmenter=str(segmenter_dir),
        frame=Resized(factor=28, min_pixels=56 * 56, max_pixels=112 * 112),
    )
    return Pipeline.load(preset, "cpu")


def test_a_report_tells_quality_speed_and_what_was_measured(
    pipeline: Pipeline, picture: Picture
) -> None:
    taken: list[int] = []

    def samples() -> Iterator[Sample]:
        whole = np.ones((70, 90), dtype=np.bool_)
        for index, (request, true, kind) in enumerate(
            [
                ("the mug", (whole,), "one"),
                ("every plate on it", (whole,), "many"),
                ("a whale", (), "absent"),
                ("say nonsense", (), "absent"),
                ("", (whole,), "one"),  # refused, which is no fault of the answer's format
            ]
        ):
            taken.append(index)
            yield Sample(lambda: picture(90, 70), request, true, kind=kind)

    done: list[int] = []
    taken_when_told: list[int] = []

    def progress(count: int) -> None:
        done.append(count)
        taken_when_told.append(len(taken))

    report = evaluate(pipeline, samples(), progress, batch_size=2)
    json.dumps(report)
    assert done == [2, 4, 5]
    assert taken_when_told == [2, 4, 5]  # samples are read as they are needed
    assert report["samples"] == 5
    assert report["format_errors"] == 0.2
    assert report["failures"] == 0.2
    assert report["n_acc"] == 0.5
    assert 0.0 < report["gIoU"] < 1.0
    assert set(report["by_kind"]) == {"one", "many", "absent"}
    assert report["convention"] == LISA
    assert report["seconds_median"] > 0
    assert report["preset"] == "tiny"
    assert report["model_version"] == pipeline.model_version


def test_no_samples_give_a_report_without_figures(pipeline: Pipeline) -> None:
    report = evaluate(pipeline, [])
    assert report["samples"] == 0
    assert report["gIoU"] is None
    assert report["seconds_median"] is None
