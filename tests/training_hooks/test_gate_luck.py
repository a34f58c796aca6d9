"""How often luck promotes: rounds of models that are equally good, and of a worse one."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest

from tests.training_hooks.gate_cases import case
from training_hooks.bootstrap import paired_interval
from training_hooks.gate import Case, GateOptions, judge

ROUNDS = 400
BOUND = 0.04
"""Stated: no more of equal challengers are promoted. One in 40 is what a 95 % interval leaves
out above it; on few images that really change it may be a little more."""

Draw = Callable[[np.random.Generator, int], list[float]]


def small_changes(chance: np.random.Generator, images: int) -> list[float]:
    """Every mask is cut a little differently."""
    return list(np.clip(0.7 + chance.normal(0, 0.1, images), 0, 1))


def right_or_wrong(chance: np.random.Generator, images: int) -> list[float]:
    """The object is found, or another one is."""
    return list(np.where(chance.random(images) < 0.75, 0.9, 0.0))


def some_changed(chance: np.random.Generator, images: int) -> list[float]:
    """Only every tenth answer differs from the others, and then by much."""
    return list(np.where(chance.random(images) < 0.1, chance.random(images), 0.8))


def model(ious: list[float], requests: int = 1) -> list[Case]:
    return [
        case(requests * image + request, iou, image=image)
        for image, iou in enumerate(ious)
        for request in range(requests)
    ]


def share_promoted(draw: Draw, images: int, worse_by: float = 0.0, requests: int = 1) -> float:
    promoted = 0
    for seed in range(ROUNDS):
        chance = np.random.default_rng(seed)
        champion = model(draw(chance, images), requests)
        ious = [min(1.0, max(0.0, iou - worse_by)) for iou in draw(chance, images)]
        challenger = model(ious, requests)
        options = GateOptions(resamples=500, seed=seed)
        promoted += judge(champion, challenger, options=options).promote
    return promoted / ROUNDS


def most_by_chance(share: float) -> float:
    """What a seeded simulation of so many rounds may show when the share is kept: 3 sigma."""
    return share + 3 * math.sqrt(share * (1 - share) / ROUNDS)


@pytest.mark.slow
def test_of_equal_models_hardly_any_is_promoted() -> None:
    shares = {
        (draw.__name__, images): share_promoted(draw, images)
        for draw in (small_changes, right_or_wrong, some_changed)
        for images in (20, 60)
    }
    assert max(shares.values()) <= most_by_chance(BOUND), shares
    assert sum(shares.values()) / len(shares) <= BOUND, shares


def test_several_requests_about_an_image_do_not_pass_as_more_evidence() -> None:
    assert share_promoted(right_or_wrong, 20, requests=4) <= most_by_chance(BOUND)


def test_a_worse_model_is_not_promoted_in_any_of_many_rounds() -> None:
    assert share_promoted(small_changes, 60, worse_by=0.05) == 0


def test_a_better_model_is_promoted_in_nearly_all_rounds() -> None:
    assert share_promoted(small_changes, 60, worse_by=-0.1) > 0.95


def test_the_interval_agrees_with_students() -> None:
    """On many normal differences both are the same, 1.99 standard errors wide at each side."""
    values = np.random.default_rng(3).normal(0.02, 0.1, 80)
    interval = paired_interval({str(at): [float(v)] for at, v in enumerate(values)}, 0.95, 20000, 0)
    error = values.std(ddof=1) / 80**0.5
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.99 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.99 * error, abs=0.1 * error)


def test_on_few_images_the_interval_is_as_wide_as_students_too() -> None:
    values = [-0.12, -0.07, -0.04, -0.01, 0.01, 0.04, 0.07, 0.12]
    interval = paired_interval({str(at): [v] for at, v in enumerate(values)}, 0.95, 20000, 0)
    error = float(np.std(values, ddof=1)) / math.sqrt(8)
    assert interval.high == pytest.approx(2.365 * error, abs=0.2 * error)  # plainly drawn: 1.83
    assert interval.low == pytest.approx(-2.365 * error, abs=0.2 * error)


def test_the_order_of_images_and_of_their_cases_changes_nothing() -> None:
    one = paired_interval({"a": [0.1, 0.7], "b": [0.3], "c": [-0.2]}, 0.9, 100, 5)
    other = paired_interval({"c": [-0.2], "a": [0.7, 0.1], "b": [0.3]}, 0.9, 100, 5)
    assert one == other
    assert one != paired_interval({"a": [0.1, 0.7], "b": [0.3], "c": [-0.2]}, 0.9, 100, 6)


def test_an_interval_that_ends_at_0_promotes_nothing() -> None:
    champion = model([0.5] * 1000)
    challenger = model([0.9 if image < 6 else 0.5 for image in range(1000)])
    verdict = judge(champion, challenger, options=GateOptions(confidence=0.999, resamples=4000))
    gain = verdict.figures.held_out.gain
    assert gain is not None
    assert gain.low == 0
    assert not verdict.promote


def test_an_image_with_more_requests_weighs_more() -> None:
    interval = paired_interval({"a": [0.3, 0.3, 0.3], "b": [0.1]}, 0.95, 1000, 0)
    assert interval.mean == pytest.approx(0.25)
    assert interval.low == pytest.approx(0.1)  # both draws "b"
    assert interval.high == pytest.approx(0.3)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for seed in range(ROUNDS):
        values = np.random.default_rng(seed).normal(0.1, 0.2, 25)
        interval = paired_interval({str(i): [float(v)] for i, v in enumerate(values)}, 0.9, 500, 1)
        held += interval.low <= 0.1 <= interval.high
    margin = NormalDist().inv_cdf(0.999) * math.sqrt(0.9 * 0.1 / ROUNDS)
    assert held / ROUNDS == pytest.approx(0.9, abs=margin)
