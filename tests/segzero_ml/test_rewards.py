"""Rewards: what an answer earns, and the holes through which others earned without merit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segzero_ml import masks
from segzero_ml.answer import AnswerSchema, parse
from segzero_ml.errors import ConfigError, DatasetError
from segzero_ml.geometry import Frame
from segzero_ml.rewards import (
    RewardParts,
    RewardWeights,
    Rollout,
    Truth,
    length_reward,
    no_repetition_reward,
    score,
)
from segzero_ml.types import Box, ImageSize, Rle

SIZE = ImageSize(200, 100)
SCHEMA = AnswerSchema.VISION_REASONER
WEIGHTS = RewardWeights()
LEFT, RIGHT = Box(20, 30, 60, 70), Box(140, 20, 180, 60)


def mask_of(box: Box) -> Rle:
    mask = np.zeros((SIZE.height, SIZE.width), dtype=np.bool_)
    mask[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] = True
    return masks.encode(mask)


def truth_of(*boxes: Box) -> Truth:
    return Truth(SIZE, tuple(mask_of(box) for box in boxes))


def text_of(*boxes: Box, think: str = "It is the red star.", point: Any = None) -> str:
    found = [
        {
            "bbox_2d": [int(v) for v in box.as_tuple()],
            "point_2d": point or [int(box.center.x), int(box.center.y)],
        }
        for box in boxes
    ]
    return f"<think>{think}</think><answer>{json.dumps(found)}</answer>"


def earned(text: str, truth: Truth, weights: RewardWeights = WEIGHTS) -> RewardParts:
    """Scores an answer whose masks fill its boxes."""
    answer = parse(text, Frame(SIZE.width, SIZE.height))
    rollout = Rollout(text, answer, tuple(mask_of(one.box) for one in answer.objects))
    return score(rollout, truth, SCHEMA, weights)


def test_the_exact_answer_earns_full_marks() -> None:
    parts = earned(text_of(LEFT, RIGHT), truth_of(LEFT, RIGHT))
    assert parts.total == pytest.approx(1.0, abs=0.005)  # whole pixels


def test_the_order_of_the_objects_makes_no_difference() -> None:
    assert earned(text_of(RIGHT, LEFT), truth_of(LEFT, RIGHT)).total == pytest.approx(
        1.0, abs=0.005
    )


def test_the_right_form_around_a_garbage_box_earns_next_to_nothing() -> None:
    parts = earned(text_of(Box(90, 80, 110, 95)), truth_of(LEFT))
    assert parts.mask == parts.box == parts.point == 0
    assert parts.total < 0.15


def test_empty_thoughts_cost_the_form() -> None:
    thoughtless = earned(text_of(LEFT, think=" "), truth_of(LEFT))
    assert thoughtless.format == 0
    assert thoughtless.total < earned(text_of(LEFT), truth_of(LEFT)).total


def test_nothing_where_nothing_is_earns_full_marks_and_anything_there_none_of_the_accuracy() -> (
    None
):
    assert earned(text_of(), truth_of()).total == pytest.approx(1.0)
    parts = earned(text_of(LEFT), truth_of())
    assert parts.mask == parts.box == parts.point == 0


def test_a_right_nothing_is_worth_more_than_any_garbage() -> None:
    assert earned(text_of(), truth_of()).total > 5 * earned(text_of(LEFT), truth_of()).total


def test_nothing_where_something_is_earns_less_than_a_poor_box() -> None:
    poor = earned(text_of(Box(30, 40, 70, 80)), truth_of(LEFT))
    assert earned(text_of(), truth_of(LEFT)).total < poor.total


def test_a_doubled_box_costs_half() -> None:
    doubled = earned(text_of(LEFT, LEFT), truth_of(LEFT))
    assert doubled.mask == pytest.approx(0.5)
    assert doubled.total < earned(text_of(LEFT), truth_of(LEFT)).total - 0.3


def test_a_missing_object_costs_its_share() -> None:
    assert earned(text_of(LEFT), truth_of(LEFT, RIGHT)).mask == pytest.approx(0.5)


def test_an_unreadable_answer_earns_nothing() -> None:
    for text in ("", "the red star", "<think>x</think><answer>[{</answer>"):
        assert earned(text, truth_of(LEFT)).total == 0
        assert earned(text, truth_of()).total == 0


@pytest.mark.parametrize("counts", ["", "garbage", "1"])
def test_corrupt_truth_raises_instead_of_scoring(counts: str) -> None:
    with pytest.raises(DatasetError):
        Truth(SIZE, (Rle(SIZE.height, SIZE.width, counts),))


def test_an_empty_true_mask_and_one_of_another_size_are_refused() -> None:
    empty = masks.encode(np.zeros((SIZE.height, SIZE.width), dtype=np.bool_))
    other = masks.encode(np.ones((5, 5), dtype=np.bool_))
    for rle in (empty, other):
        with pytest.raises(DatasetError):
            Truth(SIZE, (rle,))


def test_point_outside_the_true_mask_scores_zero() -> None:
    inside = earned(text_of(LEFT), truth_of(LEFT))
    outside = earned(text_of(LEFT, point=[62, 50]), truth_of(LEFT))
    assert inside.point > 0.9
    assert outside.point == 0
    assert outside.mask == inside.mask


def test_a_point_in_the_hole_of_a_ring_scores_zero() -> None:
    ring = np.zeros((SIZE.height, SIZE.width), dtype=np.bool_)
    ring[20:80, 20:80] = True
    ring[35:65, 35:65] = False
    truth = Truth(SIZE, (masks.encode(ring),))
    assert earned(text_of(Box(20, 20, 80, 80)), truth).point == 0


def test_points_are_measured_against_the_object_and_not_in_pixels() -> None:
    small, large = Box(20, 30, 24, 34), Box(100, 10, 180, 90)
    off_small = earned(text_of(small, point=[23, 33]), truth_of(small)).point
    off_large = earned(text_of(large, point=[141, 51]), truth_of(large)).point
    assert off_large > off_small


@pytest.mark.parametrize("side", [2, 90])
def test_a_tiny_and_a_huge_object_earn_alike_for_alike_overlap(side: int) -> None:
    box = Box(10, 5, 10 + side, 5 + side)
    shifted = Box(10 + side // 2, 5, 10 + side // 2 + side, 5 + side)
    parts = earned(text_of(shifted), truth_of(box))
    assert parts.mask == pytest.approx(1 / 3)


def test_going_round_in_circles_costs() -> None:
    loop = "the star is red and lies to the left of the ring over there " * 40
    assert no_repetition_reward(loop) < 0.1
    assert earned(text_of(LEFT, think=loop), truth_of(LEFT)).total < 1


def test_saying_a_short_thing_twice_is_no_circle() -> None:
    text = "From left to right: a red ring, no; a red ring, no; a blue star, yes. Found: one."
    assert no_repetition_reward(text) == 1


def test_length_costs_only_beyond_the_ceiling() -> None:
    assert length_reward("word " * 50, 50) == 1
    assert length_reward("word " * 75, 50) == pytest.approx(0.5)
    assert length_reward("word " * 200, 50) == 0


def test_an_object_that_was_not_cut_earns_no_mask() -> None:
    text = text_of(LEFT)
    answer = parse(text, Frame(SIZE.width, SIZE.height))
    parts = score(Rollout(text, answer, (None,)), truth_of(LEFT), SCHEMA, WEIGHTS)
    assert parts.mask == 0
    assert parts.box == pytest.approx(1)


@pytest.mark.parametrize(
    "wrong", [{"mask": -1.0}, {"box": float("nan")}, {"format": 1.0}, {"mask": 0.2}]
)
def test_weights_that_reward_form_over_masks_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        replace(WEIGHTS, **wrong)


boxes = st.tuples(
    st.integers(0, 150), st.integers(0, 60), st.integers(4, 40), st.integers(4, 35)
).map(lambda v: Box(v[0], v[1], v[0] + v[2], v[1] + v[3]))


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes, max_size=4), st.lists(boxes, max_size=4))
def test_every_part_lies_between_zero_and_one_and_truth_beats_all_else(
    answered: list[Box], true: list[Box]
) -> None:
    truth = truth_of(*true)
    parts = earned(text_of(*answered), truth)
    assert all(0 <= getattr(parts, name) <= 1 for name in RewardParts.__slots__)
    assert parts.total <= earned(text_of(*true), truth).total + 1e-9


@settings(max_examples=40, deadline=None)
@given(boxes, st.integers(1, 30))
def test_a_box_that_lies_closer_earns_more(box: Box, off: int) -> None:
    def shifted(by: int) -> Box:
        return Box(box.x1 + by, box.y1, box.x2 + by, box.y2)

    near, far = (earned(text_of(shifted(by)), truth_of(box)) for by in (off - 1, off))
    assert near.mask >= far.mask
    assert near.total >= far.total
