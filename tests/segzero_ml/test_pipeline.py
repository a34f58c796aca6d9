from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segzero_ml import masks
from segzero_ml.errors import ModelError, PresetError, WeightsError
from segzero_ml.geometry import Frame
from segzero_ml.pipeline import (
    NOTHING_CUT,
    Pipeline,
    prediction_score,
    segment_score,
    version_of,
)
from segzero_ml.presets import FrameKind, Resized, Squash, Thousand, get_preset
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.protocol import ReasonerOutput
from segzero_ml.segmenter import Segmenter
from segzero_ml.types import Box, ImageSize, Point, ProblemKind

Picture = Callable[..., Image.Image]
RESIZED = Resized(factor=28, min_pixels=56 * 56, max_pixels=112 * 112)
THOUSAND = Thousand(factor=32, min_pixels=64 * 64, max_pixels=128 * 128)
units = st.floats(0.0, 1.0)


@pytest.fixture
def segmenter(segmenter_dir: Path) -> Segmenter:
    return Segmenter.load(segmenter_dir, "cpu")


@pytest.fixture(scope="module")
def shared_segmenter(segmenter_dir: Path) -> Segmenter:
    return Segmenter.load(segmenter_dir, "cpu")


def load(reasoner: Path, segmenter: Path, frame: FrameKind = RESIZED) -> Pipeline:
    preset = dataclasses.replace(
        get_preset("tiny"), reasoner=str(reasoner), segmenter=str(segmenter), frame=frame
    )
    return Pipeline.load(preset, "cpu")


@pytest.mark.parametrize(
    ("family", "frame", "seen"),
    [
        ("taught_qwen25_dir", Squash(112), Frame(112, 112)),
        ("taught_qwen25_dir", RESIZED, Frame(168, 56)),
        ("taught_qwen3_dir", THOUSAND, Frame(1000, 1000)),
    ],
)
def test_boxes_points_and_masks_come_out_in_pixels_of_the_original(
    family: str,
    frame: FrameKind,
    seen: Frame,
    request: pytest.FixtureRequest,
    segmenter_dir: Path,
    picture: Picture,
) -> None:
    pipeline = load(request.getfixturevalue(family), segmenter_dir, frame)
    width, height = 250, 100
    [prediction] = pipeline.predict([picture(width, height)], ["  The MUG. "])
    assert prediction.problem is None
    assert prediction.request == "  The MUG. "
    assert prediction.reasoning == "It holds tea."
    assert prediction.size == ImageSize(width, height)
    assert prediction.text.startswith("<think>It holds tea.")
    assert prediction.seconds > 0
    [segment] = prediction.segments
    x, y = width / seen.width, height / seen.height
    assert segment.box_px.as_tuple() == pytest.approx((10 * x, 20 * y, 50 * x, min(70 * y, height)))
    [point] = segment.points_px
    assert (point.x, point.y) == pytest.approx((30 * x, 45 * y))
    assert (segment.rle.width, segment.rle.height) == (width, height)
    assert 0.0 < segment.score < 1.0
    assert prediction.score == segment.score


def test_the_segmenter_is_given_the_box_and_the_point(
    taught_qwen25_dir: Path, segmenter_dir: Path, picture: Picture
) -> None:
    from segzero_ml.segmenter import Prompt

    pipeline = load(taught_qwen25_dir, segmenter_dir, Squash(112))
    image = picture(112, 112)
    [prediction] = pipeline.predict([image], ["every plate on it"])
    expected = pipeline.segmenter.segment(
        image,
        [
            Prompt(Box(5, 6, 40, 30), (Point(20, 18),)),
            Prompt(Box(50, 60, 80, 99), (Point(65, 80),)),
        ],
    )
    assert [s.rle for s in prediction.segments] == [masks.encode(r.mask) for r in expected]
    confidences = [s.score / r.score for s, r in zip(prediction.segments, expected, strict=True)]
    assert confidences[0] == pytest.approx(confidences[1])
    assert 0.5 < confidences[0] < 1.0


def test_what_fails_is_told_in_its_place_and_leaves_the_others_alone(
    taught_qwen25_dir: Path, segmenter_dir: Path, picture: Picture
) -> None:
    pipeline = load(taught_qwen25_dir, segmenter_dir, Squash(112))
    requests = ["", "the mug", "x" * 10_000, "say nonsense", "a whale", "every plate on it"]
    predictions = pipeline.predict(
        [picture(90, 70, seed) for seed in range(6)], requests, batch_size=4
    )
    assert [p.request for p in predictions] == requests
    assert [len(p.segments) for p in predictions] == [0, 1, 0, 0, 0, 2]
    problems = [p.problem or "" for p in predictions]
    assert "empty" in problems[0]
    assert "limit is 2000" in problems[2]
    assert problems[3]
    assert problems[1] == problems[4] == problems[5] == ""
    assert [p.score for p in predictions if p.problem] == [0.0, 0.0, 0.0]
    assert predictions[4].score > 0.5  # sure that there is nothing
    assert predictions[3].text == "I see a table."
    assert [p.problem_kind for p in predictions] == [
        ProblemKind.FAILED,
        None,
        ProblemKind.FAILED,
        ProblemKind.UNREADABLE,
        None,
        None,
    ]


def test_no_requests_give_no_predictions(segmenter: Segmenter) -> None:
    assert Pipeline(Answers({}), segmenter, get_preset("tiny")).predict([], []) == []


class Answers:
    """A reasoner that has its texts written down, for texts that no model writes on demand."""

    version = "written"

    def __init__(self, outputs: dict[str, ReasonerOutput]) -> None:
        self.outputs = outputs
        self.batches: list[int] = []

    def answer(
        self, images: Sequence[Image.Image], requests: Sequence[str]
    ) -> list[ReasonerOutput]:
        self.batches.append(len(requests))
        return [self.outputs[request] for request in requests]


def written(text: str, **more: Any) -> ReasonerOutput:
    return ReasonerOutput(text, Frame(100, 100), 0.5, len(text), **more)


def answer_to(segmenter: Segmenter, image: Image.Image, output: ReasonerOutput) -> Any:
    pipeline = Pipeline(Answers({"it": output}), segmenter, get_preset("tiny"))
    return pipeline.predict([image], ["it"])[0]


def test_an_object_named_twice_is_cut_once(segmenter: Segmenter, picture: Picture) -> None:
    item = '{"bbox_2d":[1,2,60,70],"point_2d":[30,30]}'
    text = f"<think>x</think><answer>[{item},{item}]</answer>"
    assert len(answer_to(segmenter, picture(40, 30), written(text)).segments) == 1


def test_a_box_that_reaches_outside_is_cut_to_the_image(
    segmenter: Segmenter, picture: Picture
) -> None:
    text = '<think>x</think><answer>[{"bbox_2d":[-50,-5,500,60],"point_2d":[900,30]}]</answer>'
    prediction = answer_to(segmenter, picture(33, 77), written(text))
    [segment] = prediction.segments
    assert segment.box_px.as_tuple() == pytest.approx((0, 0, 33, 0.6 * 77))
    assert all(0 <= point.x <= 33 and 0 <= point.y <= 77 for point in segment.points_px)


def test_masks_without_a_pixel_are_not_shown(
    segmenter: Segmenter, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    monkeypatch.setattr(
        "segzero_ml.segmenter._full_size",
        lambda logits, size: np.zeros((size.height, size.width), dtype=np.bool_),
    )
    text = '<think>x</think><answer>[{"bbox_2d":[1,2,60,70],"point_2d":[30,30]}]</answer>'
    prediction = answer_to(segmenter, picture(40, 30), written(text))
    assert prediction.segments == ()
    assert prediction.problem == NOTHING_CUT
    assert prediction.problem_kind is ProblemKind.NOTHING_CUT
    assert prediction.score == 0.0


def test_a_request_that_failed_on_the_server_is_a_problem_of_its_own(
    segmenter: Segmenter, picture: Picture
) -> None:
    prediction = answer_to(segmenter, picture(40, 30), written("", problem="The server is ill."))
    assert prediction.problem == "The server is ill."
    assert prediction.problem_kind is ProblemKind.FAILED


def test_a_segmenter_out_of_memory_fails_that_image_alone(
    segmenter: Segmenter, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Any:
        raise ModelError("There is not enough memory for the segmenter.")

    monkeypatch.setattr(segmenter, "embed", full)
    text = '<think>x</think><answer>[{"bbox_2d":[1,2,60,70],"point_2d":[30,30]}]</answer>'
    prediction = answer_to(segmenter, picture(40, 30), written(text))
    assert "not enough memory" in (prediction.problem or "")
    assert prediction.problem_kind is ProblemKind.FAILED
    assert prediction.reasoning == "x"


@given(text=st.text(max_size=80))
def test_no_text_makes_the_pipeline_raise(text: str, shared_segmenter: Segmenter) -> None:
    prediction = answer_to(shared_segmenter, Image.new("RGB", (20, 10)), written(text))
    assert prediction.text == text
    assert 0.0 <= prediction.score <= 1.0


def test_requests_reach_the_reasoner_in_batches(segmenter: Segmenter, picture: Picture) -> None:
    reasoner = Answers({"it": written("<answer>[]</answer>")})
    pipeline = Pipeline(reasoner, segmenter, get_preset("tiny"))
    predictions = pipeline.predict([picture(9, 9)] * 5, ["it"] * 5, batch_size=2)
    assert reasoner.batches == [2, 2, 1]
    assert [p.score for p in predictions] == [0.5] * 5


@given(iou=units, confidence=units, more=st.lists(units, max_size=5))
def test_scores_stay_in_range_and_rise_with_what_they_are_made_of(
    iou: float, confidence: float, more: list[float]
) -> None:
    score = segment_score(iou, confidence)
    assert 0.0 <= score <= 1.0
    assert score <= segment_score(1.0, confidence)
    assert 0.0 <= prediction_score([score, *more], confidence) <= 1.0
    assert prediction_score([], confidence) == confidence


def test_the_version_names_preset_and_weights(
    qwen25_dir: Path, qwen3_dir: Path, segmenter_dir: Path
) -> None:
    one = load(qwen25_dir, segmenter_dir).model_version
    other = load(qwen3_dir, segmenter_dir, THOUSAND).model_version
    name, _, digest = one.partition("@")
    assert name == "tiny"
    assert len(digest) == 8
    assert int(digest, 16) >= 0
    assert one != other
    assert one == load(qwen25_dir, segmenter_dir).model_version


def test_the_version_changes_with_either_of_the_weights() -> None:
    names = {version_of("p", a * 64, b * 64) for a in "01" for b in "01"}
    assert len(names) == 4
    assert version_of("p", "c0ffee00" * 5, "1" * 64) == "p@c0ffee00"
    assert version_of("p", "my-model", "1" * 64) == "p@my-model"


def test_an_unknown_preset_and_missing_weights_are_told(
    segmenter_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(PresetError, match="no preset 'none'"):
        Pipeline.load("none")
    with pytest.raises(WeightsError, match="no weights at"):
        load(tmp_path / "gone", segmenter_dir)


def test_a_pipeline_takes_a_reasoner_from_elsewhere(
    segmenter_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = dataclasses.replace(get_preset("tiny"), segmenter=str(segmenter_dir))
    monkeypatch.setattr(LocalReasoner, "load", lambda *_: pytest.fail("loaded"))
    pipeline = Pipeline.load(preset, "cpu", reasoner=Answers({}))
    assert pipeline.model_version == "tiny@written"
