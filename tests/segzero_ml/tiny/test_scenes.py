"""Tabletop scenes: the same for a seed, and as the specification says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from segzero_ml.tiny.cache import HELD_OUT_STREAM, TRAINING_STREAM, scene_of
from segzero_ml.tiny.scenes import COLOURS, SHAPES, Scene, SceneObject, Style

SEEDS = range(40)


@pytest.fixture(scope="module", params=["plain", "shifted"])
def scenes(request: pytest.FixtureRequest) -> list[Scene]:
    style: Style = request.param
    return [scene_of(seed, HELD_OUT_STREAM, style) for seed in SEEDS]


def test_the_same_seed_draws_the_same_scene() -> None:
    assert scene_of(7, HELD_OUT_STREAM).jpeg == scene_of(7, HELD_OUT_STREAM).jpeg


def test_held_out_and_training_seeds_draw_other_scenes() -> None:
    assert scene_of(7, HELD_OUT_STREAM).jpeg != scene_of(7, TRAINING_STREAM).jpeg


def test_canvases_are_320_to_640_pixels_and_not_too_long(scenes: list[Scene]) -> None:
    for scene in scenes:
        sides = (scene.size.width, scene.size.height)
        assert 320 <= min(sides) <= max(sides) <= 640
        assert max(sides) / min(sides) <= 4 / 3 + 0.01
        assert scene.image.size == sides


def test_objects_are_two_to_six_inside_and_apart(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert 2 <= len(scene.objects) <= 6
        assert np.stack(scene.masks).sum(axis=0).max() == 1
        shorter = min(scene.size.width, scene.size.height)
        for o in scene.objects:
            assert 0.099 <= o.diameter_px / shorter <= 0.351
            x1, y1, x2, y2 = o.box_px.as_tuple()
            assert x1 > 0 and y1 > 0 and x2 < scene.size.width and y2 < scene.size.height


def test_every_point_lies_in_its_own_mask(scenes: list[Scene]) -> None:
    for scene in scenes:
        for o, mask in zip(scene.objects, scene.masks, strict=True):
            assert mask[int(o.point_px.y), int(o.point_px.x)]


def test_the_centre_of_a_ring_is_a_hole(scenes: list[Scene]) -> None:
    rings = [
        (o, mask)
        for scene in scenes
        for o, mask in zip(scene.objects, scene.masks, strict=True)
        if o.shape == "ring"
    ]
    assert rings
    for o, mask in rings:
        assert not mask[int(o.center_px.y), int(o.center_px.x)]


def test_boxes_enclose_the_masks_exactly(scenes: list[Scene]) -> None:
    for scene in scenes:
        for o, mask in zip(scene.objects, scene.masks, strict=True):
            image = Image.fromarray(mask)
            assert image.getbbox() == tuple(int(v) for v in o.box_px.as_tuple())
            assert int(mask.sum()) == o.area_px


def test_every_shape_and_colour_occurs() -> None:
    objects: list[SceneObject] = []
    for seed in range(150):
        objects += scene_of(seed, HELD_OUT_STREAM).objects
    assert {o.shape for o in objects} == set(SHAPES)
    assert {o.colour for o in objects} == set(COLOURS)


def test_a_plain_object_has_the_colour_of_its_name() -> None:
    for seed in SEEDS:
        scene = scene_of(seed, HELD_OUT_STREAM)
        pixels = np.asarray(scene.image, dtype=float)
        for o, mask in zip(scene.objects, scene.masks, strict=True):
            seen = np.median(pixels[mask], axis=0)
            nearest = min(COLOURS, key=lambda name: math.dist(COLOURS[name], seen))
            assert nearest == o.colour


def test_shifted_backgrounds_are_darker_than_plain_ones() -> None:
    def background(style: Style) -> float:
        levels = []
        for seed in SEEDS:
            scene = scene_of(seed, HELD_OUT_STREAM, style)
            empty = ~np.logical_or.reduce(scene.masks)
            levels.append(float(np.asarray(scene.image.convert("L"))[empty].mean()))
        return float(np.median(levels))

    assert background("shifted") < 100 < background("plain")
