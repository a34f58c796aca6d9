"""Masks as polygons: painted back they are the same masks, whatever their shape."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segzero_ml.datasets.polygons import polygons
from segzero_ml.datasets.reasonseg import TARGET, rasterise
from segzero_ml.tiny.scenes import make_scene
from segzero_ml.types import BoolMask, ImageSize


def painted(mask: BoolMask) -> BoolMask:
    found = [(tuple(corners), TARGET) for corners in polygons(mask)]
    return np.asarray(rasterise(found, ImageSize(mask.shape[1], mask.shape[0])) == TARGET)


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_any_mask_is_painted_back_exactly(mask: BoolMask) -> None:
    np.testing.assert_array_equal(painted(mask), mask)


@given(st.integers(0, 2**32 - 1))
def test_blobs_with_holes_are_painted_back_exactly(seed: int) -> None:
    """Discs added and taken away: the shapes that brushes leave."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((60, 80))
    mask = np.zeros((60, 80), dtype=bool)
    for _ in range(rng.integers(1, 8)):
        y, x, radius = rng.integers(0, 60), rng.integers(0, 80), rng.integers(2, 25)
        mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = rng.random() < 0.6
    np.testing.assert_array_equal(painted(mask), mask)


@pytest.mark.parametrize("seed", range(5))
def test_the_objects_of_a_scene_take_few_polygons(seed: int) -> None:
    """Rings have a hole, stars have notches; none needs more than a handful."""
    for mask in make_scene(np.random.default_rng(seed)).masks:
        found = polygons(np.asarray(mask))
        assert 1 <= len(found) <= 40
        np.testing.assert_array_equal(painted(np.asarray(mask)), mask)


def test_a_ring_keeps_its_hole() -> None:
    mask = np.ones((9, 9), dtype=bool)
    mask[3:6, 3:6] = False
    assert len(polygons(mask)) == 4
    np.testing.assert_array_equal(painted(mask), mask)


def test_a_rectangle_has_four_corners() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[2:7, 1:8] = True
    assert polygons(mask) == [[(1, 2), (1, 6), (7, 6), (7, 2)]]


def test_an_empty_mask_has_none() -> None:
    assert polygons(np.zeros((5, 5), dtype=bool)) == []


def test_noise_takes_time_in_proportion() -> None:
    mask = np.random.default_rng(1).random((1000, 1000)) < 0.5
    started = time.monotonic()
    assert len(polygons(mask)) > 100_000
    assert time.monotonic() - started < 60
