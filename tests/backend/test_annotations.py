from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.annotations import ImageFacts, Reason, find_prediction, identify, to_correction
from backend.labelling import parse_config
from backend.problems import PROBLEM_MARK
from segzero_ml.corrections import Correction, CorrectionKey, Verdict
from segzero_ml.errors import InputError, MaskError
from segzero_ml.types import ImageSize
from tests.backend.annotated import (
    CLASSES,
    CROSS,
    HEIGHT,
    LABELLING,
    RING,
    STAR,
    STUDIO,
    WIDTH,
    annotation,
    brush,
    correct,
    disc,
    kept,
    no_correction,
    predicted,
    prediction,
    rle,
    task,
    text,
)

SIZE = ImageSize(WIDTH, HEIGHT)


# --- Verdicts, from whole payloads ----------------------------------------------------------


def test_an_accepted_prediction_with_its_notes() -> None:
    region, note = predicted(RING, note="A hole in it."), text("notes", "A hole in it.")
    one = correct([kept(region), note], prediction(region, note))
    assert one.verdict is Verdict.ACCEPTED
    assert one.edit_iou == 1.0
    assert one.requests == ("the ring",)
    assert [s.rle for s in one.predicted] == [s.rle for s in one.corrected] == [rle(RING)]
    assert one.corrected[0].label == "Object"
    assert one.note_shown == one.note_edited == "A hole in it."
    assert (one.task, one.image, one.size) == (31, "/data/upload/7/scene.png", SIZE)
    assert (one.lead_time_s, one.model_version, one.annotator) == (12.5, "tiny-1", 3)
    assert one.key == CorrectionKey(STUDIO, 7, 901)
    assert not one.ground_truth


def test_an_edited_prediction_has_the_iou_of_the_edit() -> None:
    region = predicted(RING)
    larger = RING | disc(12, 8)
    one = correct([kept(region, larger)], prediction(region))
    assert one.verdict is Verdict.EDITED
    assert one.edit_iou == np.count_nonzero(RING) / np.count_nonzero(larger)
    assert [s.rle for s in one.predicted] == [rle(RING)]
    assert [s.rle for s in one.corrected] == [rle(larger)]


def test_a_rejected_prediction_keeps_what_was_predicted() -> None:
    one = correct([brush(STAR)], prediction(predicted(RING)))
    assert (one.verdict, one.edit_iou) == (Verdict.REJECTED, 0.0)
    assert [s.rle for s in one.predicted] == [rle(RING)]


def test_an_empty_annotation_says_that_nothing_is_here() -> None:
    one = correct([], prediction(predicted(RING)))
    assert (one.verdict, one.edit_iou, one.corrected) == (Verdict.NOTHING_HERE, 0.0, ())
    assert one.size == SIZE
    assert one.truth("the ring") == ()


def test_nothing_predicted_and_nothing_submitted_is_accepted() -> None:
    note = text("notes", "Nothing in the picture matches.")
    one = correct([note], prediction(note))
    assert (one.verdict, one.edit_iou, one.size) == (Verdict.ACCEPTED, 1.0, None)


def test_an_annotation_drawn_by_hand() -> None:
    one = correct([brush(RING), brush(STAR)])
    assert (one.verdict, one.edit_iou) == (Verdict.DRAWN_BY_HAND, None)
    assert (one.predicted, one.model_version) == ((), None)
    assert [s.rle for s in one.corrected] == [rle(RING), rle(STAR)]


def test_an_empty_annotation_without_a_prediction_is_nothing_here() -> None:
    one = correct([])
    assert (one.verdict, one.size) == (Verdict.NOTHING_HERE, None)


@pytest.mark.parametrize("result", [None, [], [brush(RING)]])
def test_a_skipped_annotation_is_no_correction(result: Any) -> None:
    skipped = annotation(was_cancelled=True, result=result)
    made = no_correction(to_correction(skipped, task(), None, LABELLING, STUDIO))
    assert made.reason is Reason.SKIPPED
    assert made.identity.key == CorrectionKey(STUDIO, 7, 901)
    assert made.identity.revision.updated_at == datetime(2026, 3, 4, 5, 6, 7, 891234, tzinfo=UTC)


def test_points_alone_are_not_taken_for_nothing_here() -> None:
    point = brush(RING, type="keypointlabels", value={"x": 1, "y": 2, "keypointlabels": ["Object"]})
    made = to_correction(annotation(point), task(), None, LABELLING, STUDIO)
    assert no_correction(made).reason is Reason.NO_MASK
    assert correct([point, brush(RING)]).verdict is Verdict.DRAWN_BY_HAND


# --- Which regions count --------------------------------------------------------------------


def test_every_region_is_one_object_whatever_its_label_and_shape() -> None:
    square = [[0, 0], [50, 0], [50, 50], [0, 50]]
    polygon = brush(
        RING, type="polygonlabels", value={"points": square, "polygonlabels": ["Object"]}
    )
    one = correct([brush(RING), polygon, brush(STAR)])
    corner = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    corner[:12, :20] = True
    assert [s.rle for s in one.corrected] == [rle(RING), rle(corner), rle(STAR)]


def test_results_with_one_id_are_one_region() -> None:
    region = brush(RING, type="brush")
    value = region["value"]
    del value["brushlabels"]
    labels = {**region, "type": "labels", "value": {**value, "labels": ["Cat"]}}
    comment = {**region, "type": "textarea", "from_name": "c", "value": {**value, "text": ["x"]}}
    one = correct([region, labels, comment], labelling=CLASSES, on=task())
    assert [(s.rle, s.label, s.request) for s in one.corrected] == [(rle(RING), "Cat", "Cat")]


def test_regions_without_an_id_are_told_apart() -> None:
    regions = [brush(RING), brush(STAR)]
    for region in regions:
        del region["id"]
    assert len(correct(regions).corrected) == 2


def test_a_region_that_was_erased_completely_is_deleted() -> None:
    region = predicted(RING)
    one = correct([kept(region, np.zeros_like(RING))], prediction(region))
    assert (one.verdict, one.corrected) == (Verdict.NOTHING_HERE, ())


def test_regions_on_another_image_and_other_results_are_left_alone() -> None:
    choice = {"id": "c", "from_name": "q", "to_name": "image", "type": "choices",
              "value": {"choices": ["good"]}}  # fmt: skip
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    one = correct([brush(RING, to_name="other"), choice, relation, brush(STAR)])
    assert [s.rle for s in one.corrected] == [rle(STAR)]


def test_a_region_of_another_size_than_the_others_is_refused() -> None:
    with pytest.raises(MaskError, match="80 x 24"):
        correct([brush(RING), brush(STAR, original_width=80)])


def test_a_mask_that_does_not_fit_the_image_is_refused() -> None:
    facts = ImageFacts(ImageSize(HEIGHT, WIDTH), "0" * 64)
    with pytest.raises(MaskError, match=f"{HEIGHT} x {WIDTH}"):
        correct([brush(RING)], image=facts)


def test_what_is_known_of_the_image_is_kept() -> None:
    one = correct([], image=ImageFacts(SIZE, "ab" * 32))
    assert (one.size, one.image_sha256) == (SIZE, "ab" * 32)


def test_too_many_regions_are_refused() -> None:
    with pytest.raises(MaskError, match="limit is 1000"):
        correct([{"type": "brush", "to_name": "image"}] * 1001)


def test_too_many_pixels_in_all_are_refused_before_any_is_read() -> None:
    value = {"x": 50, "y": 50, "radiusX": 50, "radiusY": 50, "rotation": 0}
    huge: dict[str, Any] = {"original_width": 10_000, "original_height": 10_000}
    regions = [brush(RING, type="ellipse", value=value, **huge) for _ in range(101)]
    with pytest.raises(MaskError, match="too many"):
        correct(regions)


# --- Which request --------------------------------------------------------------------------


def test_the_request_is_the_tasks_where_nobody_typed_one() -> None:
    assert correct([brush(RING)]).requests == ("the ring",)


def test_a_typed_request_goes_before_the_tasks_where_nothing_was_predicted() -> None:
    one = correct([text("request", "a wheel", "the star"), brush(STAR)])
    assert one.requests == ("the star",)
    assert one.corrected[0].request == "the star"


def test_a_request_that_the_prediction_wrote_down_goes_before_the_tasks() -> None:
    region = predicted(RING, request="what rolls")
    one = correct([kept(region)], prediction(region))
    assert one.requests == ("what rolls",)


def test_masks_asked_for_while_working_answer_what_was_typed() -> None:
    ring = predicted(RING, request="the ring")
    star = predicted(STAR, request="the star")
    typed = text("request", "the star")
    one = correct([kept(ring), kept(star), typed], prediction(ring))
    assert one.requests == ("the ring", "the star")
    assert one.truth("the ring") == (rle(RING),)
    assert one.truth("the star") == (rle(STAR),)
    assert [s.request for s in one.predicted] == ["the ring", "the star"]
    assert (one.verdict, one.edit_iou) == (Verdict.ACCEPTED, 1.0)


def test_what_is_drawn_by_hand_after_typing_answers_what_was_typed() -> None:
    ring = predicted(RING)
    one = correct([kept(ring), text("request", "the star"), brush(STAR)], prediction(ring))
    assert one.truth("the ring") == (rle(RING),)
    assert one.truth("the star") == (rle(STAR),)


def test_a_typed_request_that_nothing_answers_is_not_learnt_from() -> None:
    ring = predicted(RING)
    one = correct([kept(ring), text("request", "asdf")], prediction(ring))
    assert one.requests == ("the ring",)


def test_masks_without_a_stored_prediction_carry_their_own_request_and_version() -> None:
    star = predicted(STAR, note="Five tips.", request="the star")
    one = correct([kept(star)])
    assert (one.requests, one.model_version) == (("the star",), "tiny-2")
    assert (one.verdict, one.note_shown) == (Verdict.ACCEPTED, "Five tips.")


def test_each_label_is_a_request_where_the_task_has_none() -> None:
    cat, dog = predicted(RING, "Cat"), predicted(STAR, "Dog")
    unasked = task()
    del unasked["data"]["request"]
    one = correct([kept(cat), kept(dog, CROSS)], prediction(cat, dog), CLASSES, unasked)
    assert one.requests == ("Cat", "Dog")
    assert one.truth("Cat") == (rle(RING),)
    assert one.truth("Dog") == (rle(CROSS),)


def test_a_label_that_was_not_found_is_asked_for_all_the_same() -> None:
    cat = predicted(RING, "Cat", request="Cat")
    unasked = task()
    del unasked["data"]["request"]
    one = correct([kept(cat)], prediction(cat), CLASSES, unasked)
    assert one.requests == ("Cat", "Dog")
    assert one.truth("Dog") == ()


def test_a_relabelled_region_answers_its_new_label() -> None:
    cat = predicted(RING, "Cat", request="Cat")
    relabelled = kept(cat)
    relabelled["value"]["brushlabels"] = ["Dog"]
    unasked = task()
    del unasked["data"]["request"]
    one = correct([relabelled], prediction(cat), CLASSES, unasked)
    assert (one.truth("Cat"), one.truth("Dog")) == ((), (rle(RING),))
    assert one.verdict is Verdict.EDITED


def test_a_field_that_the_settings_name_holds_the_request() -> None:
    config = parse_config(
        '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
        '<Label value="Object"/></BrushLabels></View>'
    )
    asked = task(question="a wheel")
    one = correct([brush(RING)], labelling=config, on=asked, request_fields=["question"])
    assert one.requests == ("a wheel",)


@pytest.mark.parametrize("blank", ["", "  ", ".", "x" * 2001])
def test_a_task_without_a_usable_request_teaches_nothing(blank: str) -> None:
    made = to_correction(annotation(brush(RING)), task(request=blank), None, LABELLING, STUDIO)
    assert no_correction(made).reason is Reason.NO_REQUEST


# --- Notes ----------------------------------------------------------------------------------


def test_a_note_that_was_edited_is_kept_beside_the_one_shown() -> None:
    region = predicted(RING, note="in the details")
    result = [kept(region), text("notes", "Better:", "a ring.")]
    one = correct(result, prediction(region, text("notes", "A disc.")))
    assert (one.note_shown, one.note_edited) == ("A disc.", "Better:\na ring.")


def test_a_note_that_was_deleted_is_empty() -> None:
    region = predicted(RING)
    one = correct([kept(region)], prediction(region, text("notes", "A disc.")))
    assert (one.note_shown, one.note_edited) == ("A disc.", "")


def test_without_a_note_box_the_notes_are_those_of_the_regions() -> None:
    ring, star = predicted(RING, note="Round."), predicted(STAR, note="Round.")
    edited = kept(ring, meta={"text": ["Round, with a hole."]})
    one = correct([edited, kept(star)], prediction(ring, star))
    assert (one.note_shown, one.note_edited) == ("Round.", "Round, with a hole.\nRound.")


def test_a_note_that_the_model_wrote_while_working_is_no_edit() -> None:
    ring, star = predicted(RING, note="A hole."), predicted(STAR, note="Five tips.")
    result = [kept(ring), kept(star), text("request", "the star"), text("notes", "Five tips.")]
    one = correct(result, prediction(ring, text("notes", "A hole.")))
    assert (one.note_shown, one.note_edited) == ("Five tips.", "Five tips.")


def test_what_was_told_of_a_problem_is_no_note() -> None:
    ring, problem = predicted(RING), PROBLEM_MARK + "No object was found there."
    one = correct([kept(ring), text("notes", "A hole.", problem)], prediction(ring))
    assert one.note_edited == "A hole."
    shown = predicted(RING, note="In the details.")
    one = correct([kept(shown), text("notes", problem)], prediction(shown))
    assert (one.note_shown, one.note_edited) == ("In the details.", "In the details.")
    one = correct([kept(shown), text("status", "Too late.")], prediction(shown))
    assert (one.note_shown, one.note_edited) == ("In the details.", "In the details.")


def test_a_note_too_long_to_be_one_is_cut() -> None:
    one = correct([brush(RING), text("notes", "x" * 50_000)])
    assert one.note_edited == "x" * 20_000


# --- Which annotation, which revision -------------------------------------------------------


def test_the_same_annotation_from_webhook_and_api_is_the_same_revision() -> None:
    hook = annotation(brush(RING, id="r"), parent_prediction=501)
    api = {k: v for k, v in hook.items() if k not in ("prediction", "result_count")}
    api |= {
        "created_username": " a@b.co, 3",
        "created_ago": "3 minutes",
        "completed_by": {"id": 3, "email": "a@b.co"},
    }
    first = to_correction(hook, task(), None, LABELLING, STUDIO)
    second = to_correction(json.loads(json.dumps(api)), task(), None, LABELLING, STUDIO)
    assert first == second


@pytest.mark.parametrize(
    "changes",
    [{"result": []}, {"was_cancelled": True}, {"ground_truth": True}, {"lead_time": 13.0}],
)
def test_what_the_annotator_changes_makes_another_revision(changes: dict[str, Any]) -> None:
    one = annotation(brush(RING))
    before = identify(one, task(), STUDIO).revision
    after = identify({**one, **changes}, task(), STUDIO).revision
    assert before.updated_at == after.updated_at
    assert before != after


def test_what_label_studio_clears_later_makes_no_other_revision() -> None:
    one = annotation(brush(RING), parent_prediction=501)
    later = {**one, "parent_prediction": None, "prediction": None}
    assert identify(one, task(), STUDIO) == identify(later, task(), STUDIO)


@pytest.mark.parametrize(
    ("written", "offset"),
    [
        ("2026-03-04T05:06:07.891234Z", timedelta(0)),
        ("2026-03-04T05:06:07.891234+00:00", timedelta(0)),
        ("2026-03-04T10:36:07.891234+05:30", timedelta(hours=5, minutes=30)),
    ],
)
def test_the_time_of_saving_is_read_with_z_or_an_offset(written: str, offset: timedelta) -> None:
    found = identify(annotation(updated_at=written), task(), STUDIO).revision.updated_at
    assert found == datetime(2026, 3, 4, 5, 6, 7, 891234, tzinfo=UTC)
    assert found.utcoffset() == offset


def test_the_project_stands_in_the_task_where_the_annotation_lacks_it() -> None:
    one = annotation(brush(RING))
    del one["project"], one["task"]
    assert identify(one, task(), STUDIO).key.project == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"id": True},
        {"id": "901"},
        {"updated_at": None},
        {"updated_at": "2026-03-04T05:06:07"},
        {"updated_at": 1_772_600_000},
        {"task": 32},
        {"result": {"a": 1}},
        {"result": "[]"},
        {"result": [1]},
        {"lead_time": float("nan")},
    ],
)
def test_an_annotation_that_label_studio_would_not_send_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        to_correction({**annotation(), **changes}, task(), None, LABELLING, STUDIO)


def test_a_result_nested_beyond_measure_is_refused() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(InputError, match="no plain JSON"):
        identify(annotation({"value": deep}), task(), STUDIO)


@pytest.mark.parametrize(
    "odd",
    [{"data": None}, {"data": {"request": "the ring"}}, {"data": {"image": 3, "request": "x"}},
     {"id": None}],
)  # fmt: skip
def test_a_task_without_an_image_or_an_id_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        to_correction(annotation(brush(RING)), {**task(), **odd}, None, LABELLING, STUDIO)


@pytest.mark.parametrize("seconds", [None, -1, "12", True, 1e10, 10**400])
def test_a_lead_time_that_is_none_is_not_kept(seconds: Any) -> None:
    made = to_correction(
        annotation(brush(RING), lead_time=seconds), task(), None, LABELLING, STUDIO
    )
    assert isinstance(made, Correction)
    assert made.lead_time_s is None


@pytest.mark.parametrize(("who", "annotator"), [(5, 5), ({"id": 6}, 6), (None, None), ("x", None)])
def test_the_annotator_is_a_number_or_an_object(who: Any, annotator: int | None) -> None:
    made = to_correction(annotation(completed_by=who), task(), None, LABELLING, STUDIO)
    assert isinstance(made, Correction)
    assert made.annotator == annotator


def test_ground_truth_is_kept() -> None:
    made = to_correction(annotation(ground_truth=True), task(), None, LABELLING, STUDIO)
    assert isinstance(made, Correction)
    assert made.ground_truth


def test_an_image_in_the_task_itself_is_named_by_its_hash() -> None:
    url = "data:image/png;base64," + "A" * 100_000
    one = correct([brush(RING)], on=task(image=url))
    assert one.image.startswith("inline:sha256:")
    assert one.image == correct([], on=task(image=url)).image
    assert one.image != correct([], on=task(image=url + "A")).image


def test_what_comes_out_survives_json() -> None:
    region = predicted(RING, note="\ud83d half a character")
    one = correct([kept(region, RING | STAR)], prediction(region, model_version="v\ud800"))
    assert Correction.from_json(json.loads(json.dumps(one.to_json()))) == one


# --- Hostile --------------------------------------------------------------------------------

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["image", "brush", "brushlabels", "polygon", "bitmask", "prediction"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a payload with each of its keys; the insides of an RLE count once."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    found = []
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list) and key != "rle":
            found += places(value[key])
    return found


@given(st.data())
def test_whatever_stands_in_a_payload_is_read_or_refused(data: st.DataObject) -> None:
    ring = predicted(RING, note="A hole.", request="the ring")
    sides = {"x": 1, "y": 2, "width": 30, "height": 40, "rotation": 5}
    square = brush(RING, type="rectangle", value=sides)
    corners = {"points": [[1, 2], [30, 2], [9, 40]], "polygonlabels": ["Object"]}
    outline = brush(RING, type="polygonlabels", value=corners)
    payload = copy.deepcopy(
        {
            "annotation": annotation(kept(ring), square, outline, text("notes", "A hole.")),
            "task": task(),
            "prediction": prediction(ring, text("notes", "A disc.")),
        }
    )
    holder, key = data.draw(
        st.sampled_from([at for part in payload.values() for at in places(part)])
    )
    holder[key] = data.draw(ODD)
    try:
        found = find_prediction(payload["annotation"], [payload["prediction"]])
        made = to_correction(payload["annotation"], payload["task"], found, LABELLING, STUDIO)
    except InputError:
        return
    if isinstance(made, Correction):
        assert Correction.from_json(json.loads(json.dumps(made.to_json()))) == made


# --- A prediction that cannot be read --------------------------------------------------------


def unreadable_predictions() -> dict[str, dict[str, Any]]:
    """As imported, or left by another tool; the id of their region is the one that was kept."""
    sound = predicted(RING, id="kept")
    without_size = {k: v for k, v in sound.items() if not k.startswith("original_")}
    turned = {**sound, "original_width": HEIGHT, "original_height": WIDTH}
    cut_short = {**sound, "value": {**sound["value"], "rle": sound["value"]["rle"][:9]}}
    endless = {**sound, "meta": {"request": "x" * 100_000}}
    return {
        "without a size": prediction(without_size),
        "as before it was turned upright": prediction(turned),
        "damaged": prediction(cut_short),
        "with a request without end": prediction(endless),
        "no list": prediction(result={"a": 1}),
        "no objects": prediction(result=[3]),
    }


@pytest.mark.parametrize("what", unreadable_predictions())
@pytest.mark.parametrize("image", [None, ImageFacts(SIZE, "0" * 64)], ids=["no image", "image"])
def test_a_sound_annotation_is_learnt_though_its_prediction_cannot_be_read(
    what: str, image: ImageFacts | None, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = unreadable_predictions()[what]
    drawn = [brush(STAR), text("notes", "The star.")]
    assert correct(drawn, damaged, image=image) == correct(drawn, image=image)
    kept_id = [brush(STAR, id="kept", origin="prediction-changed")]
    assert correct(kept_id, damaged, image=image) == correct(kept_id, image=image)
    assert "Prediction 501 cannot be read" in caplog.text


def test_an_annotation_that_kept_a_damaged_region_is_still_refused() -> None:
    damaged = unreadable_predictions()["without a size"]
    with pytest.raises(MaskError):
        correct([kept(damaged["result"][0])], damaged)


# --- Which prediction -----------------------------------------------------------------------


def test_the_prediction_is_the_parent() -> None:
    first, second = prediction(predicted(RING)), prediction(predicted(RING), id=502)
    assert find_prediction(annotation(parent_prediction=501), [second, first]) == first


def test_a_parent_that_is_gone_is_found_beside_the_annotation() -> None:
    gone = prediction(predicted(RING))
    one = annotation(kept(gone["result"][0]), parent_prediction=501, prediction=gone)
    assert find_prediction(one, []) == gone


def test_without_a_parent_the_one_that_shares_most_regions_is_taken() -> None:
    ring, star = predicted(RING), predicted(STAR)
    first, second = prediction(ring), prediction(ring, star, id=502)
    one = annotation(kept(ring), kept(star))
    assert find_prediction(one, [first, second]) == second


def test_of_several_that_share_the_same_the_newest_is_taken() -> None:
    ring = predicted(RING)
    first, second = prediction(ring), prediction(ring, id=502)
    assert find_prediction(annotation(kept(ring)), [second, first]) == second


def test_without_a_parent_or_shared_regions_there_is_no_prediction() -> None:
    others = [prediction(predicted(RING)), prediction(id=502)]
    assert find_prediction(annotation(brush(RING)), others) is None
    assert find_prediction(annotation(), others) is None
    assert find_prediction(annotation(prediction={}), []) is None


BOX = {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0}


def test_a_box_beside_masks_is_no_truth_and_no_empty_annotation_either() -> None:
    """It says that something is there: "nothing here" would be a lie."""
    box = brush(RING, type="rectanglelabels", value={**BOX, "rectanglelabels": ["Object"]})
    assert len(correct([brush(RING), box]).corrected) == 1
    made = to_correction(annotation(box), task(), None, LABELLING, STUDIO)
    assert getattr(made, "reason", None) is Reason.NO_MASK


def test_where_only_boxes_can_be_drawn_a_box_is_the_truth() -> None:
    boxes = parse_config(
        '<View><Image name="image" value="$image"/><RectangleLabels name="b" toName="image">'
        '<Label value="Object"/></RectangleLabels></View>'
    )
    box = brush(RING, type="rectanglelabels", value={**BOX, "rectanglelabels": ["Object"]})
    corner = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    corner[:12, :20] = True
    assert [s.rle for s in correct([box], labelling=boxes).corrected] == [rle(corner)]


def test_what_is_only_pointed_at_is_not_learnt_beside_what_has_masks() -> None:
    """Without this its request would have nothing as its truth."""
    mixed = parse_config(
        '<View><Image name="image" value="$image"/><BrushLabels name="b" toName="image">'
        '<Label value="Object"/></BrushLabels><KeyPointLabels name="k" toName="image">'
        '<Label value="Centre"/></KeyPointLabels></View>'
    )
    point = brush(RING, type="keypointlabels", value={"x": 1, "y": 1, "keypointlabels": ["Centre"]})
    made = correct([brush(RING), point], labelling=mixed, on=task(request=None))
    assert made.requests == ("Object",)
