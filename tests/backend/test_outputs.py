"""Every control, in any mix: valid for Label Studio, and the same object comes back out."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from label_studio_sdk.label_interface.interface import LabelInterface as _LabelInterface
from PIL import Image

from backend import outputs
from backend.controls import MASKS, Kind
from backend.labelling import parse_config
from backend.outputs.contours import outline
from backend.problems import error_result
from backend.regions import read_regions
from backend.shapes import fill_polygon
from backend.translate import Labelled, Shown, to_regions, to_task_result
from segzero_ml import masks
from segzero_ml.errors import MaskError
from segzero_ml.types import BoolMask, Box, ImageSize, Prediction, Segment

LabelInterface: Any = _LabelInterface  # its methods are without types
SIZE = ImageSize(60, 40)
TAGS = {
    Kind.BRUSH: "BrushLabels",
    Kind.BITMASK: "BitmaskLabels",
    Kind.POLYGON: "PolygonLabels",
    Kind.RECTANGLE: "RectangleLabels",
    Kind.KEYPOINT: "KeyPointLabels",
}
TEXTS = (
    '<TextArea name="notes" toName="image" smart="false"/>'
    '<TextArea name="why" toName="image" perRegion="true"/>'
)
CHOICES = (
    '<Choices name="seen" toName="image"><Choice value="present"/><Choice value="absent"/>'
    "</Choices>"
)


def config(*kinds: Kind, more: str = "") -> str:
    controls = "".join(
        f'<{TAGS[kind]} name="{kind.value}" toName="image"><Label value="Star"/>'
        f'<Label value="Ring" alias="r"/></{TAGS[kind]}>'
        for kind in kinds
    )
    return f'<View><Image name="image" value="$image"/>{controls}{more}</View>'


def ring(centre: tuple[int, int] = (20, 20), outer: float = 14, inner: float = 6) -> BoolMask:
    rows, columns = np.ogrid[: SIZE.height, : SIZE.width]
    distance = np.hypot(rows - centre[1], columns - centre[0])
    found: BoolMask = (distance < outer) & (distance >= inner)
    return found


def predicted(*found: BoolMask, reasoning: str = "It is round.") -> Prediction:
    return Prediction(
        request="the ring",
        size=SIZE,
        reasoning=reasoning,
        segments=tuple(Segment(Box(0, 0, 1, 1), (), masks.encode(one), 0.9) for one in found),
        score=0.8,
        model_version="tiny@1",
    )


def filled(mask: BoolMask) -> BoolMask:
    height, width = mask.shape
    return fill_polygon(outline(mask), ImageSize(width, height))


bits = arrays.arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)))


@settings(deadline=None)
@given(
    st.sets(st.sampled_from(list(Kind))),
    st.lists(bits, max_size=3),
    st.sampled_from(["Star", "r"]),
    st.sampled_from(["", TEXTS, CHOICES, TEXTS + CHOICES]),
    st.sampled_from(["", "A reason."]),
)
def test_any_mix_of_controls_is_valid_for_label_studio(
    kinds: set[Kind], found: list[BoolMask], label: str, more: str, reason: str
) -> None:
    if not kinds and not more:
        return
    xml = config(*sorted(kinds), more=more)
    segments = tuple(Segment(Box(0, 0, 1, 1), (), masks.encode(one), 0.9) for one in found)
    size = ImageSize(24, 24)
    answer = Prediction("x", size, reason, segments, 0.5, "tiny@1")
    given_label = label if kinds else ""
    result = to_task_result([Labelled(answer, given_label)], parse_config(xml))
    assert LabelInterface(xml).validate_prediction(result, return_errors=True) == []
    drawn = {item["type"] for item in result["result"] if item["type"].endswith("labels")}
    assert drawn == ({f"{kind}labels" for kind in kinds} if any(m.any() for m in found) else set())


@pytest.mark.parametrize("kind", MASKS)
def test_mask_comes_back_out_of_what_is_shown(kind: Kind) -> None:
    labelling = parse_config(config(kind))
    result = to_task_result([Labelled(predicted(ring()), "Star")], labelling)["result"]
    [region] = read_regions(result, "image", SIZE, labelling.masked_labels)
    agreement = masks.iou(masks.decode(region.rle), ring())
    assert agreement > 0.95 if kind is Kind.POLYGON else agreement == 1
    assert (region.label, region.request, region.note) == ("Star", "the ring", "It is round.")


def test_one_object_in_every_control_is_one_object_of_a_correction() -> None:
    labelling = parse_config(config(*reversed(Kind), more=TEXTS))
    answer = predicted(ring(), ring((48, 20), 8, 0))
    result = to_task_result([Labelled(answer, "Star")], labelling)["result"]
    regions = read_regions(result, "image", SIZE, labelling.masked_labels)
    assert [masks.decode(one.rle).sum() for one in regions] == [
        ring().sum(),
        ring((48, 20), 8, 0).sum(),
    ]
    assert len({item["id"] for item in result if item["type"] != "textarea"}) == 10


def test_the_shape_that_the_annotator_changed_is_the_truth() -> None:
    labelling = parse_config(config(Kind.BRUSH, Kind.POLYGON, Kind.RECTANGLE))
    result = to_task_result([Labelled(predicted(ring()), "Star")], labelling)["result"]
    [polygon] = [item for item in result if item["type"] == "polygonlabels"]
    polygon["value"]["points"] = [[0, 0], [50, 0], [50, 50], [0, 50]]
    polygon["origin"] = "prediction-changed"
    [box] = [item for item in result if item["type"] == "rectanglelabels"]
    box["value"]["width"], box["origin"] = 1, "prediction-changed"
    [region] = read_regions(result, "image", SIZE, labelling.masked_labels)
    assert masks.decode(region.rle).sum() == 30 * 20
    assert region.origin == "prediction-changed"


def test_box_is_the_truth_only_where_nobody_can_draw_the_mask() -> None:
    boxes = parse_config(config(Kind.RECTANGLE))
    result = to_task_result([Labelled(predicted(ring()), "Star")], boxes)["result"]
    [region] = read_regions(result, "image", SIZE, boxes.masked_labels)
    assert masks.bounding_box_px(masks.decode(region.rle)) == masks.bounding_box_px(ring())
    assert read_regions(result, "image", SIZE, {"Star"}) == ()


def test_object_in_two_parts_is_one_polygon_that_fills_both_and_nothing_between() -> None:
    both = ring() | ring((48, 20), 8, 0)
    labelling = parse_config(config(Kind.POLYGON))
    result = to_task_result([Labelled(predicted(both), "Star")], labelling)["result"]
    assert len(result) == 1
    [region] = read_regions(result, "image", SIZE)
    assert masks.iou(masks.decode(region.rle), both) > 0.95


@settings(deadline=None)
@given(bits, bits, st.permutations(list(Kind)))
def test_what_an_object_becomes_takes_the_place_of_what_it_was(
    before: BoolMask, after: BoolMask, kinds: list[Kind]
) -> None:
    """The editor sets regions by their ids and takes none away."""
    labelling = parse_config(config(*kinds))
    found = [mask for mask in (before, after) if mask.any()]
    shown = [
        to_regions(Shown("x", "Star", masks.encode(mask), 0.9, "", "", "v"), labelling)
        for mask in found
    ]
    kept = [{one["id"]: (one["type"], one["from_name"]) for one in regions} for regions in shown]
    assert all(len(ids) == len(kinds) for ids in kept)
    assert all(ids == kept[0] for ids in kept)


def test_polygon_of_an_object_that_lost_a_part_shows_the_part_that_is_left() -> None:
    labelling = parse_config(config(Kind.POLYGON))
    one = ring((48, 20), 8, 0)
    drawn: dict[str, Any] = {}
    for mask in (ring() | one, one):
        shown = Shown("x", "Star", masks.encode(mask), 0.9, "", "", "v")
        drawn.update({region["id"]: region for region in to_regions(shown, labelling)})
    [region] = read_regions(list(drawn.values()), "image", SIZE)
    assert masks.iou(masks.decode(region.rle), one) > 0.95


@settings(deadline=None)
@given(bits)
def test_outline_fills_back_to_its_mask(mask: BoolMask) -> None:
    """All of these are so small that a hundredth of them is less than a pixel or two."""
    if not mask.any():
        return
    assert masks.iou(filled(mask), mask) > 0.9


def test_outline_of_a_large_smooth_mask_has_few_corners_and_keeps_its_hole() -> None:
    rows, columns = np.ogrid[:600, :800]
    distance = np.hypot(rows - 300, columns - 400)
    large: BoolMask = (distance < 250) & (distance > 120)
    assert len(outline(large)) < 80
    assert masks.iou(filled(large), large) > 0.97
    assert not filled(large)[300, 400]


def test_specks_and_pinholes_are_left_out_of_outlines() -> None:
    mask = np.zeros((100, 100), dtype=np.bool_)
    mask[10:90, 10:90] = True
    mask[40, 40] = False
    mask[2, 2] = True
    assert len(outline(mask)) == 4


def test_bitmask_is_black_where_the_mask_is_and_transparent_elsewhere() -> None:
    value = outputs.value(Kind.BITMASK, ring())
    with Image.open(BytesIO(base64.b64decode(value["imageDataURL"].split(",")[1]))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (SIZE.height, SIZE.width, 4)
    assert np.array_equal(pixels[..., 3] > 0, ring())
    assert not pixels[..., :3].any()


def test_keypoint_lies_on_the_object_and_the_box_around_it() -> None:
    point = outputs.value(Kind.KEYPOINT, ring())
    column, row = point["x"] * SIZE.width / 100, point["y"] * SIZE.height / 100
    assert ring()[int(row), int(column)]
    box = outputs.value(Kind.RECTANGLE, ring())
    around = masks.bounding_box_px(ring())
    assert around is not None
    assert box["x"] * SIZE.width / 100 == pytest.approx(around.x1, abs=1e-4)
    assert box["width"] * SIZE.width / 100 == pytest.approx(around.width, abs=1e-4)


def test_empty_mask_is_refused() -> None:
    with pytest.raises(MaskError, match="empty"):
        outputs.value(Kind.BRUSH, np.zeros((3, 3), dtype=np.bool_))


def test_note_goes_to_each_region_and_to_the_picture() -> None:
    labelling = parse_config(config(Kind.RECTANGLE, more=TEXTS))
    result = to_task_result([Labelled(predicted(ring(), ring((48, 20), 8, 0)), "Star")], labelling)
    texts = [item for item in result["result"] if item["type"] == "textarea"]
    assert [one["from_name"] for one in texts] == ["why", "why", "notes"]
    boxes = [item for item in result["result"] if item["type"] == "rectanglelabels"]
    assert [one["id"] for one in texts[:2]] == [one["id"] for one in boxes]
    assert texts[0]["value"] == {
        **{name: boxes[0]["value"][name] for name in ("x", "y", "width", "height", "rotation")},
        "text": ["It is round."],
    }


@pytest.mark.parametrize(("found", "choice"), [((ring(),), "present"), ((), "absent")])
def test_choice_says_whether_it_is_there(found: tuple[BoolMask, ...], choice: str) -> None:
    labelling = parse_config(config(Kind.BRUSH, more=CHOICES))
    result = to_task_result([Labelled(predicted(*found), "Star")], labelling)["result"]
    assert [r["value"]["choices"] for r in result if r["type"] == "choices"] == [[choice]]


def test_choices_of_labels_name_those_that_were_found() -> None:
    tag = '<Choices name="c" toName="image" choice="multiple"><Choice value="star"/>'
    labelling = parse_config(config(Kind.BRUSH, more=f'{tag}<Choice value="ring"/></Choices>'))
    answers = [Labelled(predicted(ring()), "r"), Labelled(predicted(), "Star")]
    result = to_task_result(answers, labelling)["result"]
    assert [r["value"]["choices"] for r in result if r["type"] == "choices"] == [["ring"]]


@pytest.mark.parametrize(
    ("name", "lines"),
    [("status", ["Too long. Be brief."]), ("notes", ["Why.", "SegZero: Too long. Be brief."])],
)
def test_refusal_is_told_in_its_own_place_or_behind_the_notes(name: str, lines: list[str]) -> None:
    status = '<TextArea name="status" toName="image" smart="false"/>'
    xml = config(Kind.BRUSH, more=TEXTS + (status if name == "status" else ""))
    labelling = parse_config(xml)
    found = error_result("Too long.\nBe brief.", labelling, "tiny@1", notes=["Why."])
    assert [(r["from_name"], r["value"]["text"]) for r in found["result"]] == [(name, lines)]
    assert LabelInterface(xml).validate_prediction(found, return_errors=True) == []
    assert error_result("x", parse_config(config(Kind.BRUSH)), "tiny@1")["result"] == []
