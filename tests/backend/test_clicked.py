"""What clicks made is the annotator's work, never an answer of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.labelling import parse_config
from backend.regions import read_regions
from backend.translate import to_regions
from segzero_ml import masks
from segzero_ml.corrections import Verdict
from segzero_ml.pipeline import Pipeline
from segzero_ml.tiny.scenes import Scene
from segzero_ml.types import BoolMask
from tests.backend.annotated import correct, kept, prediction, task
from tests.backend.serving import naming
from tests.backend.test_interactive import CONFIG, click, text
from tests.backend.test_interactive_refining import (
    LABELLING,
    TASK,
    Annotator,
    draft,
    inside,
    split,
)


@pytest.fixture
def annotator(tiny_pipeline: Pipeline, scenes: list[Scene]) -> Annotator:
    return Annotator(tiny_pipeline, scenes[0])


def area(mask: BoolMask) -> int:
    return int(np.count_nonzero(mask))


def accepted(region: dict[str, Any]) -> dict[str, Any]:
    """The region once its suggestion was accepted, by the tick or by Auto accept."""
    assert region["origin"] == "prediction"
    return region


def test_object_that_the_model_missed_and_that_was_clicked_is_an_edit(
    annotator: Annotator,
) -> None:
    found, missed = annotator.scene.masks[:2]
    region = annotator.show(found)
    added = annotator.click(draft(region), inside(missed))
    one = correct([kept(region), accepted(added)], prediction(region), LABELLING)
    assert one.verdict is Verdict.EDITED
    assert [s.rle for s in one.predicted] == [masks.encode(found)]
    assert one.edit_iou == pytest.approx(area(found) / area(found | annotator.mask(added)))
    assert len(one.truth("asked")) == 2


def test_click_where_the_model_found_nothing_rejects_its_answer(annotator: Annotator) -> None:
    added = annotator.click(TASK, annotator.scene.objects[0].point_px)
    one = correct([accepted(added)], prediction(text("notes", "Nothing.")), LABELLING)
    assert (one.verdict, one.predicted, one.edit_iou) == (Verdict.REJECTED, (), 0.0)


def test_answer_to_a_typed_request_that_clicks_repaired_is_an_edit(annotator: Annotator) -> None:
    most, rest = split(annotator.scene.masks[0])
    annotator.remember(most)
    repaired = annotator.click(TASK, inside(rest))
    again = annotator.click(draft(repaired), inside(most))
    for region in (repaired, again):
        one = correct([accepted(region)], labelling=LABELLING)
        assert (one.verdict, one.predicted, one.edit_iou) == (Verdict.EDITED, (), None)
        assert (one.requests, len(one.corrected)) == (("asked",), 1)


def test_request_with_a_click_is_no_plain_answer_of_the_model(annotator: Annotator) -> None:
    at = click(annotator.scene.objects[0].point_px, annotator.scene.size)
    shown = annotator.do(TASK, text("request", naming(annotator.scene)), at)
    [region] = [one for one in shown if one["type"] == "brushlabels"]
    one = correct([accepted(region)], labelling=LABELLING)
    assert (one.verdict, one.predicted) == (Verdict.EDITED, ())


def test_prediction_that_clicks_refined_is_compared_with_what_it_was(annotator: Annotator) -> None:
    before, missing = split(annotator.scene.masks[0])
    region = annotator.show(before)
    refined = annotator.click(draft(region), inside(missing))
    one = correct([accepted(refined)], prediction(region), LABELLING)
    after = annotator.mask(refined)
    assert one.verdict is Verdict.EDITED
    assert [s.rle for s in one.predicted] == [masks.encode(before)]
    overlap = area(before & after) / area(before | after)
    assert overlap < 0.98
    assert one.edit_iou == pytest.approx(overlap)


@pytest.mark.parametrize("is_painted", [False, True])
def test_task_where_all_was_clicked_without_a_prediction_is_drawn_by_hand(
    annotator: Annotator, is_painted: bool
) -> None:
    regions = [annotator.click(TASK, one.point_px) for one in annotator.scene.objects[:2]]
    if is_painted:
        regions[0] = kept(regions[0], annotator.scene.masks[0])
    one = correct(regions, labelling=LABELLING, request_fields=["request"])
    assert (one.verdict, one.predicted, one.edit_iou) == (Verdict.DRAWN_BY_HAND, (), None)
    assert one.model_version is None
    assert [s.request for s in one.corrected] == ["the ring", "the ring"]


def test_clicked_object_answers_what_was_typed_as_one_drawn_by_hand_does(
    annotator: Annotator,
) -> None:
    added = annotator.click(TASK, annotator.scene.objects[0].point_px)
    one = correct([accepted(added), text("request", "the star")], labelling=LABELLING)
    assert (one.verdict, one.requests) == (Verdict.DRAWN_BY_HAND, ("the star",))


def test_answer_that_was_left_as_it_came_is_still_accepted(annotator: Annotator) -> None:
    shown = annotator.do(TASK, text("request", naming(annotator.scene)))
    [region] = [one for one in shown if one["type"] == "brushlabels"]
    one = correct([accepted(region)], on=task(), labelling=LABELLING)
    assert (one.verdict, one.edit_iou) == (Verdict.ACCEPTED, 1.0)
    assert one.model_version == annotator.pipeline.model_version


def test_click_counts_where_its_answer_was_accepted_for_one_control_only(
    tiny_pipeline: Pipeline, scenes: list[Scene]
) -> None:
    polygon = '<PolygonLabels name="outline" toName="image"><Label value="A"/></PolygonLabels>'
    config = CONFIG.replace("<KeyPointLabels", f"{polygon}<KeyPointLabels", 1)
    annotator = Annotator(tiny_pipeline, scenes[0], config)
    before, missing = split(scenes[0].masks[0])
    brush, outline = to_regions(annotator.shown(before), parse_config(config))
    at = click(inside(missing), scenes[0].size)
    refined = annotator.do(draft(brush, outline), at)
    [new_outline] = [one for one in refined if one["id"] == outline["id"]]
    [region] = read_regions([brush, new_outline], "image")
    assert masks.decode(region.rle)[int(inside(missing).y), int(inside(missing).x)]
    one = correct([brush, new_outline], prediction(brush, outline), parse_config(config))
    assert one.verdict is Verdict.EDITED
