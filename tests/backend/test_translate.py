"""Predictions as Label Studio stores them: valid for it, and the mask comes back out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface.interface import LabelInterface as _LabelInterface

from backend.labelling import parse_config
from backend.regions import noted_requests, read_regions
from backend.templates import labelling_config
from backend.translate import NOTHING_FOUND, Labelled, empty_result, new_region_id, to_task_result
from segzero_ml import masks
from segzero_ml.types import BoolMask, Box, ImageSize, Point, Prediction, Segment

LabelInterface: Any = _LabelInterface  # its methods are without types
CONFIG = labelling_config(("Star", "Ring"))
LABELLING = parse_config(CONFIG)
WITHOUT_NOTES = parse_config(
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Star"/></BrushLabels></View>'
)


def disc(width: int, height: int) -> BoolMask:
    rows, columns = np.ogrid[:height, :width]
    inside: BoolMask = (rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (height / 4) ** 2
    return inside


def prediction(
    *found: BoolMask, reasoning: str = "It has five points.", score: float = 0.8, **more: Any
) -> Prediction:
    segments = tuple(
        Segment(Box(0, 0, 1, 1), (Point(0, 0),), masks.encode(mask), 0.9) for mask in found
    )
    values: dict[str, Any] = {
        "request": "the star",
        "size": ImageSize(30, 20),
        "reasoning": reasoning,
        "segments": segments,
        "score": score,
        "model_version": "tiny@1234",
        **more,
    }
    return Prediction(**values)


def translated(*answers: Prediction, labelling: Any = LABELLING) -> dict[str, Any]:
    ids = (f"r{number}" for number in itertools.count())
    answered = [Labelled(answer, "Star") for answer in answers]
    return to_task_result(answered, labelling, lambda: next(ids))


def test_prediction_is_valid_for_label_studio() -> None:
    found = translated(prediction(disc(30, 20), ~disc(30, 20)))
    assert LabelInterface(CONFIG).validate_prediction(found, return_errors=True) == []


def test_mask_comes_back_out_of_the_region_with_label_studios_decoder() -> None:
    mask = disc(30, 20)
    region = translated(prediction(mask))["result"][0]
    assert (region["original_width"], region["original_height"]) == (30, 20)
    channels = decode_rle(region["value"]["rle"]).reshape(20, 30, 4)
    assert np.array_equal(channels[:, :, 3] > 127, mask)


def test_region_carries_label_score_and_note() -> None:
    region = translated(prediction(disc(30, 20)))["result"][0]
    assert (region["from_name"], region["to_name"], region["type"]) == (
        "brush",
        "image",
        "brushlabels",
    )
    assert region["value"]["brushlabels"] == ["Star"]
    assert region["score"] == 0.9
    assert region["image_rotation"] == 0
    assert region["meta"]["text"] == ["It has five points."]


def test_region_tells_where_it_comes_from_when_it_is_submitted() -> None:
    """Nothing else does, of a mask that was asked for while working."""
    found = translated(prediction(disc(30, 20)))
    assert found["result"][0]["origin"] == "prediction"
    [region] = read_regions(found["result"], "image")
    assert (region.origin, region.request) == ("prediction", "the star")
    assert (region.model_version, region.note) == ("tiny@1234", "It has five points.")


def test_note_goes_into_the_text_area_once_for_several_segments() -> None:
    result = translated(prediction(disc(30, 20), disc(30, 20)))["result"]
    assert [item["type"] for item in result] == ["brushlabels", "brushlabels", "textarea"]
    assert result[-1]["from_name"] == "notes"
    assert result[-1]["value"] == {"text": ["It has five points."]}
    assert len({item["id"] for item in result}) == 3


def test_config_without_notes_area_gets_regions_only() -> None:
    result = translated(prediction(disc(30, 20)), labelling=WITHOUT_NOTES)["result"]
    assert [item["type"] for item in result] == ["brushlabels"]


def test_nothing_found_is_a_note_without_regions() -> None:
    silent = translated(prediction(reasoning=""))
    assert [item["value"]["text"] for item in silent["result"]] == [[NOTHING_FOUND]]
    reasoned = translated(prediction(reasoning="There is no star."))
    assert [item["value"]["text"] for item in reasoned["result"]] == [["There is no star."]]
    assert translated(prediction(reasoning=""), labelling=WITHOUT_NOTES)["result"] == []


def test_mask_without_a_reason_gets_no_empty_note() -> None:
    result = translated(prediction(disc(30, 20), reasoning=""))["result"]
    assert [item["type"] for item in result] == ["brushlabels"]
    assert "text" not in result[0]["meta"]


def test_several_requests_make_one_prediction_with_a_note_each() -> None:
    answers = [
        Labelled(prediction(disc(30, 20), score=0.9, request="star", reasoning="Points."), "Star"),
        Labelled(prediction(score=0.5, request="ring", reasoning=""), "Ring"),
        Labelled(prediction(disc(30, 20), score=0.1, request="ring", reasoning="Hole."), "Ring"),
    ]
    found = to_task_result(answers, LABELLING)
    assert [r["value"].get("brushlabels") for r in found["result"][:-1]] == [["Star"], ["Ring"]]
    assert found["result"][-1]["value"]["text"] == [
        "star: Points.",
        f"ring: {NOTHING_FOUND}",
        "ring: Hole.",
    ]
    assert found["score"] == pytest.approx(0.5)
    assert LabelInterface(CONFIG).validate_prediction(found, return_errors=True) == []


@pytest.mark.parametrize(("score", "shown"), [(-1.0, 0.0), (2.0, 1.0), (math.nan, 0.0)])
def test_scores_stay_between_zero_and_one(score: float, shown: float) -> None:
    assert translated(prediction(score=score))["score"] == shown


def test_version_is_a_name() -> None:
    assert translated(prediction())["model_version"] == "tiny@1234"
    assert empty_result("tiny@1") == {"model_version": "tiny@1", "score": 0.0, "result": []}


def test_region_ids_do_not_repeat() -> None:
    assert len({new_region_id() for _ in range(1000)}) == 1000


def test_notes_and_choices_keep_what_was_asked_for_where_nothing_was_found() -> None:
    choices = (
        '<Choices name="seen" toName="image"><Choice value="yes"/><Choice value="no"/></Choices>'
    )
    config = CONFIG.replace("</View>", f"{choices}</View>")
    found = translated(prediction(request="the star"), labelling=parse_config(config))
    assert [item["type"] for item in found["result"]] == ["textarea", "choices"]
    for item in found["result"]:
        assert noted_requests([item]) == ["the star"]
    assert LabelInterface(config).validate_prediction(found, return_errors=True) == []
