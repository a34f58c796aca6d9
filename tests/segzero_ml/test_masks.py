"""Run lengths both ways, hostile ones too, overlap, and a mask's box and inner point."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from segzero_ml import masks
from segzero_ml.errors import MaskError
from segzero_ml.types import BoolMask, Box, ImageSize, Point, Rle

MASKS = hnp.arrays(
    np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.booleans()
)


def _random(height: int, width: int, share: float, seed: int) -> BoolMask:
    return np.asarray(np.random.default_rng(seed).random((height, width)) < share)


def _disc(side: int, centre: tuple[float, float], radius: float) -> BoolMask:
    rows, columns = np.mgrid[:side, :side] + 0.5
    return np.asarray(np.hypot(columns - centre[0], rows - centre[1]) <= radius)


@given(MASKS)
def test_a_mask_survives_encoding(mask: BoolMask) -> None:
    rle = masks.encode(mask)
    assert (rle.height, rle.width) == mask.shape
    np.testing.assert_array_equal(masks.decode(rle), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.999, 1.0])
def test_decoding_agrees_with_pycocotools_for_short_and_long_runs(share: float) -> None:
    mask = _random(311, 1207, share, seed=3)
    rle = masks.encode(mask)
    theirs = coco.decode({"size": [rle.height, rle.width], "counts": rle.counts.encode()})
    np.testing.assert_array_equal(masks.decode(rle), theirs.astype(bool))


def test_a_decoded_mask_can_be_written_to_and_lies_in_row_order() -> None:
    decoded = masks.decode(masks.encode(_random(7, 5, 0.5, seed=1)))
    assert decoded.flags.c_contiguous
    decoded[0, 0] = not decoded[0, 0]


def test_runs_go_down_the_columns_first() -> None:
    mask = np.zeros((3, 2), dtype=np.bool_)
    mask[:, 1] = True
    assert masks.encode(mask).counts == "33"


@given(st.integers(1, 40), st.integers(1, 40), st.text(max_size=60))
def test_any_text_decodes_to_a_mask_of_its_size_or_is_refused(
    height: int, width: int, counts: str
) -> None:
    try:
        decoded = masks.decode(Rle(height=height, width=width, counts=counts))
    except MaskError:
        return
    assert decoded.shape == (height, width)


@given(MASKS, st.data())
def test_damaged_counts_are_refused_or_still_fill_the_mask(
    mask: BoolMask, data: st.DataObject
) -> None:
    rle = masks.encode(mask)
    place = data.draw(st.integers(0, len(rle.counts) - 1))
    character = data.draw(st.characters(min_codepoint=0, max_codepoint=127))
    damaged = rle.counts[:place] + character + rle.counts[place + 1 :]
    try:
        decoded = masks.decode(Rle(rle.height, rle.width, damaged))
    except MaskError:
        return
    assert decoded.shape == mask.shape


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "do not fill"),
        ("8", "do not fill"),
        (":", "do not fill"),
        ("0!", "not of the encoding"),
        ("9p", "not of the encoding"),
        ("9P", "middle of a number"),
        ("PPPPPPP0", "too large"),
        ("G1", "negative"),
        ("ooooooO", "negative"),
        ("oooooo?", "do not fill"),
        ("0" * 12, "too long"),
    ],
)
def test_hostile_counts_are_refused_with_the_reason(counts: str, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        masks.decode(Rle(height=3, width=3, counts=counts))


def test_a_few_characters_cannot_claim_a_huge_mask() -> None:
    with pytest.raises(MaskError, match="over the limit"):
        masks.decode(Rle(height=10**6, width=10**6, counts="0"))


def test_the_json_form_survives_a_round_trip() -> None:
    rle = masks.encode(_random(9, 4, 0.4, seed=5))
    assert masks.from_json(json.loads(json.dumps(masks.to_json(rle)))) == rle
    assert masks.to_json(rle)["size"] == [9, 4]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"size": [3, 3]},
        {"size": [3, 3], "counts": "9", "more": 1},
        {"size": [3], "counts": "9"},
        {"size": "33", "counts": "9"},
        {"size": [3, True], "counts": "9"},
        {"size": [3, 3.0], "counts": "9"},
        {"size": [0, 3], "counts": ""},
        {"size": [-1, -9], "counts": "9"},
        {"size": [3, 3], "counts": [9]},
        {"size": [3, 3], "counts": "\uff19"},
    ],
)
def test_json_that_is_not_a_mask_is_refused(value: object) -> None:
    with pytest.raises(MaskError):
        masks.from_json(value)


@pytest.mark.parametrize(
    "mask",
    [np.zeros((2, 2)), np.zeros(4, dtype=bool), np.zeros((0, 3), dtype=bool)],
)
def test_what_is_no_bool_mask_is_refused(mask: BoolMask) -> None:
    with pytest.raises(MaskError, match="bool array"):
        masks.encode(mask)
    with pytest.raises(MaskError, match="bool array"):
        masks.bounding_box_px(mask)


def test_iou_of_a_case_worked_by_hand() -> None:
    a, b = np.zeros((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    a[:, :2] = True  # 8 pixels
    b[1:3, 1:4] = True  # 6 pixels, 2 of them shared
    assert masks.iou(a, b) == pytest.approx(2 / 12)
    assert masks.iou(a, a) == 1.0
    assert masks.iou(a, ~a) == 0.0


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((2, 3), dtype=bool)
    assert masks.iou(empty, empty) == 1.0
    assert masks.iou(empty, ~empty) == 0.0


def test_masks_of_different_shapes_cannot_be_compared() -> None:
    with pytest.raises(MaskError, match="cannot be compared"):
        masks.iou(np.zeros((1, 3), dtype=bool), np.zeros((2, 3), dtype=bool))


def test_a_union_joins_masks_and_leaves_them_alone() -> None:
    a = _random(5, 6, 0.3, seed=1)
    b = _random(5, 6, 0.3, seed=2)
    before = a.copy()
    np.testing.assert_array_equal(masks.union([a, b], ImageSize(6, 5)), a | b)
    np.testing.assert_array_equal(a, before)
    assert not masks.union([], ImageSize(6, 5)).any()
    with pytest.raises(MaskError, match="does not fit"):
        masks.union([a], ImageSize(5, 6))


def test_the_box_of_a_mask_ends_after_its_last_pixel() -> None:
    mask = np.zeros((8, 10), dtype=bool)
    mask[2, 3] = mask[5, 7] = True
    assert masks.bounding_box_px(mask) == Box(3, 2, 8, 6)
    assert masks.bounding_box_px(np.zeros((8, 10), dtype=bool)) is None


@given(MASKS)
def test_the_inner_point_lies_on_the_mask(mask: BoolMask) -> None:
    point = masks.inner_point_px(mask)
    assert (point is None) == (not mask.any())
    if point is not None:
        assert mask[int(point.y), int(point.x)]
        assert (point.x % 1, point.y % 1) == (0.5, 0.5)


def test_the_inner_point_of_a_disc_is_its_centre() -> None:
    assert masks.inner_point_px(_disc(101, (40.5, 50.5), 30)) == Point(40.5, 50.5)


def test_the_inner_point_of_a_ring_lies_on_the_ring() -> None:
    ring = _disc(101, (50.5, 50.5), 40) & ~_disc(101, (50.5, 50.5), 30)
    point = masks.inner_point_px(ring)
    assert point is not None
    assert 33 <= np.hypot(point.x - 50.5, point.y - 50.5) <= 37


def test_the_border_of_the_image_counts_as_an_edge() -> None:
    assert masks.inner_point_px(np.ones((5, 9), dtype=bool)) == Point(2.5, 2.5)


def test_of_equally_deep_pixels_the_leftmost_and_then_the_topmost_is_taken() -> None:
    mask = np.zeros((7, 7), dtype=bool)
    mask[1, 5] = mask[5, 1] = mask[3, 1] = True
    assert masks.inner_point_px(mask) == Point(1.5, 3.5)
