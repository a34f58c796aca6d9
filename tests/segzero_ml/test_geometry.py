"""Frames: round trips, clipping, overlap, and the Qwen-VL size rule."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl import image_processing_qwen2_vl as reference

from segzero_ml.errors import GeometryError
from segzero_ml.geometry import (
    Frame,
    box_from_pct,
    box_from_px,
    box_iou,
    box_to_pct,
    box_to_px,
    clip_box,
    clip_point,
    point_from_pct,
    point_from_px,
    point_to_pct,
    point_to_px,
    smart_resize,
)
from segzero_ml.types import Box, ImageSize, Point

SIDES = st.integers(1, 20_000)
SIZES = st.builds(ImageSize, SIDES, SIDES)
FRAMES = st.builds(Frame, st.floats(1, 20_000), st.floats(1, 20_000))
COORDINATES = st.floats(-1e5, 1e5)
POINTS = st.builds(Point, COORDINATES, COORDINATES)
SQUASH = Frame(840, 840)


def _box(x: tuple[float, float], y: tuple[float, float]) -> Box:
    return Box(min(x), min(y), max(x), max(y))


PAIRS = st.tuples(COORDINATES, COORDINATES)
BOXES = st.builds(_box, PAIRS, PAIRS)


def _close(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(math.isclose(p, q, rel_tol=1e-9, abs_tol=1e-9) for p, q in zip(a, b, strict=True))


@given(BOXES, FRAMES, SIZES)
def test_a_box_survives_the_way_to_pixels_and_back(box: Box, frame: Frame, size: ImageSize) -> None:
    back = box_from_px(box_to_px(box, frame, size), frame, size)
    assert _close(back.as_tuple(), box.as_tuple())


@given(POINTS, FRAMES, SIZES)
def test_a_point_survives_the_way_to_pixels_and_back(
    point: Point, frame: Frame, size: ImageSize
) -> None:
    back = point_from_px(point_to_px(point, frame, size), frame, size)
    assert _close((back.x, back.y), (point.x, point.y))


@given(BOXES, POINTS, SIZES)
def test_box_and_point_survive_the_way_to_percent_and_back(
    box: Box, point: Point, size: ImageSize
) -> None:
    assert _close(box_from_pct(box_to_pct(box, size), size).as_tuple(), box.as_tuple())
    back = point_from_pct(point_to_pct(point, size), size)
    assert _close((back.x, back.y), (point.x, point.y))


@given(FRAMES, SIZES)
def test_the_whole_image_is_the_whole_frame(frame: Frame, size: ImageSize) -> None:
    whole = box_to_px(Box(0, 0, frame.width, frame.height), frame, size)
    assert _close(whole.as_tuple(), (0, 0, size.width, size.height))


def test_each_axis_has_its_own_scale() -> None:
    size = ImageSize(1680, 420)
    assert box_to_px(Box(84, 84, 420, 420), SQUASH, size) == Box(168, 42, 840, 210)
    assert point_to_px(Point(420, 420), SQUASH, size) == Point(840, 210)
    assert box_to_pct(Box(168, 42, 840, 210), size) == Box(10, 10, 50, 50)
    assert point_to_pct(Point(168, 42), size) == Point(10, 10)


@pytest.mark.parametrize("side", [0.0, -1.0, math.inf, math.nan])
def test_a_frame_without_extent_is_refused(side: float) -> None:
    with pytest.raises(GeometryError, match="above 0"):
        Frame(side, 10)
    with pytest.raises(GeometryError, match="above 0"):
        Frame(10, side)


@given(BOXES, SIDES, SIDES)
def test_a_clipped_box_lies_inside_and_clipping_again_changes_nothing(
    box: Box, width: int, height: int
) -> None:
    clipped = clip_box(box, width, height)
    assert 0 <= clipped.x1 <= clipped.x2 <= width
    assert 0 <= clipped.y1 <= clipped.y2 <= height
    assert clip_box(clipped, width, height) == clipped


def test_clipping_keeps_what_is_inside_and_cuts_what_is_not() -> None:
    assert clip_box(Box(-5, 2, 30, 8), 20, 10) == Box(0, 2, 20, 8)
    assert clip_box(Box(25, 2, 30, 8), 20, 10) == Box(20, 2, 20, 8)
    assert clip_point(Point(-5, 12), 20, 10) == Point(0, 10)
    assert clip_point(Point(5, 2), 20, 10) == Point(5, 2)


def test_box_iou_of_a_case_worked_by_hand() -> None:
    # 2 x 4 shared of 4 x 4 + 4 x 4 - 8 = 24
    assert box_iou(Box(0, 0, 4, 4), Box(2, 0, 6, 4)) == pytest.approx(8 / 24)
    assert box_iou(Box(0, 0, 4, 4), Box(4, 0, 6, 4)) == 0.0
    assert box_iou(Box(0, 0, 4, 4), Box(6, 6, 7, 7)) == 0.0


def test_boxes_without_area_match_only_themselves() -> None:
    assert box_iou(Box(3, 3, 3, 3), Box(3, 3, 3, 3)) == 1.0
    assert box_iou(Box(3, 3, 3, 3), Box(4, 4, 4, 4)) == 0.0
    assert box_iou(Box(3, 3, 3, 3), Box(0, 0, 9, 9)) == 0.0


@given(BOXES, BOXES)
def test_box_iou_is_symmetric_bounded_and_one_for_the_same_box(a: Box, b: Box) -> None:
    assert 0.0 <= box_iou(a, b) <= 1.0
    assert box_iou(a, b) == box_iou(b, a)
    assert box_iou(a, a) == pytest.approx(1.0)


@given(
    st.integers(1, 6000),
    st.integers(1, 6000),
    st.sampled_from([(28, 56 * 56, 12_845_056), (28, 3136, 501_760), (32, 65_536, 16_777_216)]),
)
def test_smart_resize_agrees_with_the_processor_of_transformers(
    width: int, height: int, rule: tuple[int, int, int]
) -> None:
    factor, least, most = rule
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(GeometryError, match="long and thin"):
            smart_resize(ImageSize(width, height), factor, least, most)
        return
    rows, columns = reference.smart_resize(height, width, factor, least, most)
    assert smart_resize(ImageSize(width, height), factor, least, most) == ImageSize(columns, rows)


@pytest.mark.parametrize("rule", [(0, 1, 2), (28, 0, 2), (28, 100, 99)])
def test_smart_resize_refuses_limits_that_make_no_sense(rule: tuple[int, int, int]) -> None:
    with pytest.raises(GeometryError, match="factor"):
        smart_resize(ImageSize(10, 10), *rule)
