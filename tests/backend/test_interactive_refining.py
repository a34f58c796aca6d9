"""Which region a click refines, from what: what is on the annotator's screen, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.brush import encode_rle
from backend.interactive.existing import meant
from backend.interactive.gesture import Gesture, read_gesture
from backend.interactive.memory import Memory, Remembered, remembered
from backend.interactive.session import Interactive, Turn
from backend.labelling import Labelling, parse_config
from backend.task_requests import LabelRequest
from backend.translate import Labelled, Shown, to_regions
from segzero_ml import masks
from segzero_ml.images import decode_image
from segzero_ml.pipeline import Pipeline
from segzero_ml.segmenter import MaskResult, Prompt
from segzero_ml.tiny.scenes import Scene
from segzero_ml.types import BoolMask, Point, Prediction
from tests.backend.serving import naming
from tests.backend.test_interactive import CONFIG, click, mask_of, text

LABELLING = parse_config(CONFIG)
LATER = "2999-01-01T00:00:00Z"
EARLIER = "2000-01-01T00:00:00Z"
TASK: dict[str, Any] = {"id": 1, "data": {}}


class Recording:
    """The pipeline, and what it was asked to cut."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.prompts: list[Prompt] = []

    @property
    def model_version(self) -> str:
        return self._pipeline.model_version

    def predict(
        self, images: Sequence[Image.Image], requests: Sequence[str], *, batch_size: int = 8
    ) -> list[Prediction]:
        return self._pipeline.predict(images, requests, batch_size=batch_size)

    def cut(self, image: Image.Image, prompts: Sequence[Prompt]) -> list[MaskResult]:
        self.prompts += prompts
        return self._pipeline.cut(image, prompts)


class Annotator:
    """Somebody who works on one scene; `memory` is the backend's."""

    def __init__(self, pipeline: Pipeline, scene: Scene, config: str = CONFIG) -> None:
        self.labelling = parse_config(config)
        self.scene = scene
        self.pipeline = Recording(pipeline)
        self.asked: list[str] = []
        self.restart()

    def restart(self) -> None:
        """The backend forgets everything."""
        self.memory = Memory()
        self._interactive = Interactive(self.memory)

    def do(self, task: dict[str, Any], *context: dict[str, Any]) -> list[dict[str, Any]]:
        picture = decode_image(self.scene.jpeg)

        async def image() -> Image.Image:
            return picture

        async def ask(picture: Image.Image, request: LabelRequest) -> Labelled:
            self.asked.append(request.text)
            [found] = self.pipeline.predict([picture], [request.text])
            return Labelled(found, request.label)

        turn = Turn(1, task, list(context), self.labelling, self.pipeline, image, ask)
        reply = asyncio.run(self._interactive.answer(turn))
        found: list[dict[str, Any]] = reply["result"]
        return found

    def click(
        self, task: dict[str, Any], at: Point, positive: bool = True, label: str = "A"
    ) -> dict[str, Any]:
        """Click once, and the one region of the answer."""
        [region] = self.do(task, click(at, self.scene.size, positive, label))
        return region

    def mask(self, region: dict[str, Any]) -> BoolMask:
        return mask_of([region], self.scene.size)

    def show(self, mask: BoolMask, region_id: str = "r1") -> dict[str, Any]:
        """A region as the backend shows one; nothing remembers it yet."""
        [region] = to_regions(self.shown(mask, region_id), self.labelling)
        return region

    def shown(self, mask: BoolMask, region_id: str = "r1") -> Shown:
        return Shown(region_id, "A", masks.encode(mask), 0.5, "asked", "", "tiny@1")

    def remember(self, mask: BoolMask, region_id: str = "r1") -> None:
        shown = self.shown(mask, region_id)
        found = remembered(shown, to_regions(shown, self.labelling))
        assert found is not None
        self.memory.remember((1, 1), found)


Make = Callable[..., Annotator]


@pytest.fixture
def annotator(tiny_pipeline: Pipeline, scenes: list[Scene]) -> Annotator:
    return Annotator(tiny_pipeline, scenes[0])


def draft(*results: dict[str, Any], at: str = LATER) -> dict[str, Any]:
    return {**TASK, "drafts": [{"updated_at": at, "result": list(results)}]}


def moments_later(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def painted(region: dict[str, Any], mask: BoolMask) -> dict[str, Any]:
    """The region as somebody left it after painting."""
    value = {**region["value"], "rle": encode_rle(mask)}
    return {**region, "value": value, "origin": "prediction-changed"}


def split(mask: BoolMask) -> tuple[BoolMask, BoolMask]:
    """Most of an object, and the strip at its right side that is missing there."""
    around = masks.bounding_box_px(mask)
    assert around is not None
    most, rest = mask.copy(), mask.copy()
    at = int(around.x1 + 0.75 * around.width)
    most[:, at:] = False
    rest[:, :at] = False
    return most, rest


def inside(mask: BoolMask) -> Point:
    point = masks.inner_point_px(mask)
    assert point is not None
    return point


def asked_of(
    task: dict[str, Any], annotator: Annotator, at: Point, labelling: Labelling = LABELLING
) -> Remembered | None:
    """The object that a click at a place means."""
    gesture = read_gesture([click(at, annotator.scene.size)], labelling)
    assert isinstance(gesture, Gesture)
    known = annotator.memory.of((1, 1))
    return meant(gesture, task, known, labelling, annotator.scene.size)


# --- What became of a region -------------------------------------------------------------


def test_region_that_was_deleted_does_not_come_back_with_the_next_click(
    annotator: Annotator,
) -> None:
    at = annotator.scene.objects[0].point_px
    first = annotator.click(TASK, at)
    again = annotator.click(draft(), Point(at.x + 3, at.y + 3))
    assert again["id"] != first["id"]


def test_mask_over_everything_that_was_deleted_swallows_no_clicks(annotator: Annotator) -> None:
    size = annotator.scene.size
    annotator.remember(np.ones((size.height, size.width), dtype=np.bool_), "bad")
    for one, truth in zip(annotator.scene.objects, annotator.scene.masks, strict=True):
        region = annotator.click(draft(), one.point_px)
        assert region["id"] != "bad"
        assert masks.iou(annotator.mask(region), truth) > 0.5


def test_region_that_was_erased_completely_is_gone(annotator: Annotator) -> None:
    annotator.remember(annotator.scene.masks[0])
    empty = np.zeros_like(annotator.scene.masks[0])
    left = painted(annotator.show(annotator.scene.masks[0]), empty)
    assert asked_of(draft(left), annotator, inside(annotator.scene.masks[0])) is None


def test_refinement_that_was_undone_is_not_gone_on_with(annotator: Annotator) -> None:
    whole = annotator.scene.masks[0]
    before, missing = split(whole)
    region = annotator.show(before)
    refined = annotator.click(draft(region, at=EARLIER), inside(missing))
    assert refined["id"] == region["id"]
    assert annotator.mask(refined)[int(inside(missing).y), int(inside(missing).x)]
    found = asked_of(draft(region), annotator, inside(before))
    assert found is not None
    assert np.array_equal(masks.decode(found.shown.rle), before)


def test_refinement_that_no_draft_holds_yet_is_gone_on_with(annotator: Annotator) -> None:
    before, missing = split(annotator.scene.masks[0])
    region = annotator.show(before)
    refined = annotator.click(draft(region, at=EARLIER), inside(missing))
    found = asked_of(draft(region, at=EARLIER), annotator, inside(before))
    assert found is not None
    assert np.array_equal(masks.decode(found.shown.rle), annotator.mask(refined))


def test_region_that_was_accepted_just_now_is_refined_though_the_draft_lacks_it(
    annotator: Annotator,
) -> None:
    """Label Studio saves a draft some seconds after what was typed, and so before the answer."""
    at = annotator.scene.objects[0].point_px
    first = annotator.click(TASK, at)
    again = annotator.click(draft(at=moments_later(3)), Point(at.x + 3, at.y + 3))
    assert again["id"] == first["id"]


def test_suggestion_that_no_draft_has_is_one_object_with_further_clicks(
    annotator: Annotator,
) -> None:
    size = annotator.scene.size
    first = click(annotator.scene.objects[0].point_px, size)
    [before] = annotator.do(TASK, first)
    [after] = annotator.do(draft(), first, click(Point(2, 2), size, positive=False))
    assert after["id"] == before["id"]


def test_region_that_got_another_label_keeps_it_when_it_is_refined(annotator: Annotator) -> None:
    at = annotator.scene.objects[0].point_px
    first = annotator.click(TASK, at)
    relabelled = {**first, "value": {**first["value"], "brushlabels": ["B"]}}
    region = annotator.click(draft(relabelled), Point(at.x + 3, at.y + 3), label="B")
    assert region["id"] == first["id"]
    assert region["value"]["brushlabels"] == ["B"]


def test_polygon_that_nobody_touched_is_refined_from_the_mask_behind_it(
    tiny_pipeline: Pipeline, scenes: list[Scene]
) -> None:
    config = CONFIG.replace("BrushLabels", "PolygonLabels").replace('"brush"', '"polygon"')
    polygons = Annotator(tiny_pipeline, scenes[0], config)
    mask = scenes[0].masks[0]
    polygons.remember(mask)
    region = polygons.show(mask)
    assert not np.array_equal(polygons.mask(region), mask)
    for at in (EARLIER, LATER):
        found = asked_of(draft(region, at=at), polygons, inside(mask), polygons.labelling)
        assert found is not None
        assert np.array_equal(masks.decode(found.shown.rle), mask)


# --- Whose region --------------------------------------------------------------------------


def stored(annotator: Annotator) -> tuple[dict[str, Any], dict[str, Any], BoolMask, BoolMask]:
    """A prediction, an annotation that erased half of it, and the mask of each."""
    whole = annotator.scene.masks[0]
    half = split(whole)[0]
    region = annotator.show(whole)
    prediction = {"created_at": "2026-01-02T00:00:00Z", "result": [region]}
    annotation = {"updated_at": "2026-01-03T00:00:00Z", "result": [painted(region, half)]}
    return prediction, annotation, whole, half


@pytest.mark.parametrize(
    ("annotations", "saved_at", "is_used"),
    [(1, "2026-01-03T00:00:00Z", True), (2, "2026-01-03T00:00:00Z", False), (1, EARLIER, False)],
    ids=["the only one", "one of two", "older than the prediction"],
)
def test_annotation_is_refined_only_where_it_is_what_the_task_was_opened_with(
    annotator: Annotator, annotations: int, saved_at: str, is_used: bool
) -> None:
    prediction, annotation, whole, half = stored(annotator)
    saved = [{**annotation, "updated_at": saved_at}] * annotations
    task = {**TASK, "drafts": [], "annotations": saved, "predictions": [prediction]}
    found = asked_of(task, annotator, inside(half))
    assert found is not None
    assert np.array_equal(masks.decode(found.shown.rle), half if is_used else whole)


def test_own_draft_counts_more_than_anybodys_annotation(annotator: Annotator) -> None:
    prediction, annotation, whole, half = stored(annotator)
    own = draft(annotator.show(whole), at="2026-01-01T00:00:00Z")
    task = {**own, "annotations": [annotation], "predictions": [prediction]}
    found = asked_of(task, annotator, inside(half))
    assert found is not None
    assert np.array_equal(masks.decode(found.shown.rle), whole)


def test_what_one_annotator_refined_of_a_draft_is_not_refined_by_another(
    annotator: Annotator,
) -> None:
    left, right = split(annotator.scene.masks[0])
    refined = annotator.click(draft(annotator.show(left), at=EARLIER), inside(right))
    assert refined["id"] == "r1"
    other = {**TASK, "drafts": [], "annotations": [], "predictions": []}
    assert asked_of(other, annotator, inside(left)) is None
    theirs = draft(annotator.show(right), at=EARLIER)
    found = asked_of(theirs, annotator, inside(right))
    assert found is not None
    assert np.array_equal(masks.decode(found.shown.rle), right)


# --- What a click takes and leaves ---------------------------------------------------------


def beside(whole: BoolMask) -> BoolMask:
    """A strip at the left of an object: a shadow, say."""
    around = masks.bounding_box_px(whole)
    assert around is not None
    strip = np.zeros_like(whole)
    left = max(int(around.x1) - 12, 0)
    strip[int(around.y1) : int(around.y2), left : left + 10] = True
    return strip


def test_positive_click_keeps_what_was_painted_by_hand(
    tiny_pipeline: Pipeline, scenes: list[Scene]
) -> None:
    for scene in scenes[:3]:
        annotator = Annotator(tiny_pipeline, scene)
        for whole in scene.masks:
            strip = beside(whole)
            before = split(whole)[0] | strip
            on = draft(painted(annotator.show(whole), before))
            region = annotator.click(on, inside(whole & ~before))
            after = annotator.mask(region)
            assert (after & before).sum() == before.sum()
            again = annotator.click(draft(region), inside(whole))
            assert (annotator.mask(again) & strip).sum() == strip.sum()


def test_negative_click_takes_no_more_of_what_was_painted_than_its_own_part(
    tiny_pipeline: Pipeline, scenes: list[Scene]
) -> None:
    kept = []
    for scene in scenes[:4]:
        annotator = Annotator(tiny_pipeline, scene)
        for number, whole in enumerate(scene.masks):
            other = scene.masks[(number + 1) % len(scene.masks)]
            left = painted(annotator.show(whole), whole | other)
            at = inside(other)
            left["meta"] = {**left["meta"], "box": [0, 0, scene.size.width, scene.size.height]}
            region = annotator.do(draft(left), click(at, scene.size, positive=False))[0]
            after = annotator.mask(region)
            assert not after[int(at.y), int(at.x)]
            kept.append((after & whole).sum() / whole.sum())
    assert np.quantile(kept, 0.1) > 0.95  # where the part itself is not mistaken


def test_positive_clicks_take_nothing_away_from_a_mask(
    tiny_pipeline: Pipeline, scenes: list[Scene]
) -> None:
    for scene in scenes[:3]:
        annotator = Annotator(tiny_pipeline, scene)
        for whole in scene.masks:
            most, rest = split(whole)
            both = most | beside(whole)
            region = annotator.show(whole)
            region["value"]["rle"] = encode_rle(both)
            missing = inside(rest)
            refined = annotator.click(draft(region), missing)
            after = annotator.mask(refined)
            assert refined["id"] == "r1"
            assert (after & both).sum() >= 0.95 * both.sum()
            assert after[int(missing.y), int(missing.x)]


def test_clicks_before_go_on_to_count_unless_the_mask_no_longer_obeys_them(
    annotator: Annotator,
) -> None:
    one, other = annotator.scene.objects[:2]
    first, second = one.point_px, Point(one.point_px.x + 3, one.point_px.y + 3)
    corner = Point(2, 2)
    size = annotator.scene.size
    [region] = annotator.do(TASK, click(first, size), click(corner, size, positive=False))
    annotator.pipeline.prompts.clear()
    region = annotator.click(draft(region), second)
    whole = annotator.pipeline.prompts[0]
    assert whole.labels is not None
    given = {
        (round(at.x), round(at.y)): is_on
        for at, is_on in zip(whole.points_px, whole.labels, strict=True)
    }
    assert given[(2, 2)] is False
    assert given[(round(first.x), round(first.y))] is True
    moved = painted(region, annotator.scene.masks[1])
    annotator.pipeline.prompts.clear()
    moved["meta"] = {**moved["meta"], "box": [int(v) for v in other.box_px.as_tuple()]}
    annotator.click(draft(moved), other.point_px)
    at = [(round(p.x), round(p.y)) for p in annotator.pipeline.prompts[0].points_px]
    assert (2, 2) in at
    assert (round(first.x), round(first.y)) not in at


# --- What was typed --------------------------------------------------------------------------


def test_note_edited_after_a_restart_asks_for_nothing(annotator: Annotator) -> None:
    asked = text("request", naming(annotator.scene))
    annotator.do(TASK, asked)
    saved = draft(asked, text("notes", "its reasons"))
    for name in ("drafts", "annotations"):
        annotator.restart()
        task = {**TASK, name: saved["drafts"]}
        assert annotator.do(task, asked, text("notes", "my own words")) == []
    chosen = {**text("other"), "type": "choices", "value": {"choices": ["x"]}}
    annotator.restart()
    assert annotator.do(saved, asked, chosen) == []
    assert len(annotator.asked) == 1


def test_request_typed_after_a_restart_is_asked_even_if_a_draft_has_it_already(
    annotator: Annotator,
) -> None:
    """A draft may be saved between the typing and the call."""
    first, notes = text("request", naming(annotator.scene)), text("notes", "its reasons")
    more = text("request", naming(annotator.scene), naming(annotator.scene, 1))
    annotator.do(draft(first, notes), more, notes)
    annotator.restart()
    annotator.do(draft(more, notes), more, notes)
    assert annotator.asked == [naming(annotator.scene, 1)] * 2


def test_each_annotators_request_box_is_known_by_itself(annotator: Annotator) -> None:
    mine, theirs = text("request", "the star"), {**text("request", "the ring"), "id": "theirs"}
    annotator.do(TASK, mine)
    annotator.do(TASK, theirs)
    assert annotator.do(TASK, mine, text("notes", "mine")) == []
    assert annotator.do(TASK, theirs, text("notes", "theirs")) == []
    assert annotator.asked == ["the star", "the ring"]


# --- Labels, and the event loop ---------------------------------------------------------------


def with_click_label(*output_labels: str) -> str:
    labels = "".join(f'<Label value="{name}"/>' for name in output_labels)
    return (
        f'<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
        f'{labels}</BrushLabels><KeyPointLabels name="point" toName="image" smart="true">'
        '<Label value="Find it"/></KeyPointLabels><TextArea name="notes" toName="image"/></View>'
    )


def test_label_that_no_region_can_have_is_told_and_not_turned_into_another_one(
    tiny_pipeline: Pipeline, scenes: list[Scene]
) -> None:
    at = scenes[0].objects[0].point_px
    several = Annotator(tiny_pipeline, scenes[0], with_click_label("A", "B"))
    told = several.click(TASK, at, label="Find it")
    assert told["from_name"] == "notes"
    assert 'the label "Find it"' in told["value"]["text"][0]
    several.remember(scenes[0].masks[0])
    region, taken_back = several.do(TASK, click(at, scenes[0].size, label="Find it"))
    assert region["id"] == "r1"  # it has a label already
    assert (taken_back["from_name"], taken_back["value"]["text"]) == ("notes", [])
    one = Annotator(tiny_pipeline, scenes[0], with_click_label("A"))
    assert one.click(TASK, at, label="Find it")["value"]["brushlabels"] == ["A"]


def test_no_mask_is_decoded_where_all_calls_are_answered(
    annotator: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large picture that takes a good part of a second."""
    threads: set[int] = set()
    decode = masks.decode

    def watched(rle: Any) -> BoolMask:
        threads.add(threading.get_ident())
        return decode(rle)

    monkeypatch.setattr(masks, "decode", watched)
    point = click(annotator.scene.objects[0].point_px, annotator.scene.size)
    annotator.do(TASK, text("request", naming(annotator.scene)), point)
    annotator.do(TASK, point)
    assert threads
    assert threading.get_ident() not in threads
