"""Held-out tabletop scenes as samples: made from seeds, never trained on."""

from __future__ import annotations

from functools import partial

import numpy as np

from segzero_ml.datasets import Sample, Samples
from segzero_ml.errors import DatasetError
from segzero_ml.tiny.cache import HELD_OUT_STREAM, scene_of
from segzero_ml.tiny.requests import KINDS, SceneRequest, make_request
from segzero_ml.tiny.scenes import Scene, Style

SEEDS_APART = 1_000_000
"""Evaluations with different seeds share no scene below this many samples."""


def scene_samples(limit: int = 1000, seed: int = 0, style: Style = "plain") -> Samples:
    """Samples of held-out scenes, every kind of request equally often.

    Args:
        limit: How many samples; each has a scene of its own.
        seed: Which samples; the same seed gives the same ones.
        style: `plain`, or `shifted` for scenes unlike those of the bundled training.

    Raises:
        DatasetError: The limit or the seed is out of range.
    """
    if not 1 <= limit <= SEEDS_APART:
        raise DatasetError(f"The limit on samples must be 1 to {SEEDS_APART}, not {limit}.")
    if seed < 0:
        raise DatasetError(f"The seed must not be negative, but it is {seed}.")
    first = seed * SEEDS_APART
    return Samples([partial(scene_sample, first + i, style) for i in range(limit)])


def scene_sample(number: int, style: Style = "plain") -> Sample:
    """The held-out sample of a number; its kind of request goes round with the number."""
    kind = KINDS[number % len(KINDS)]
    scene, request = _scene_with(number, kind, style)
    return Sample(
        image=lambda: scene.image,
        request=request.text,
        masks=tuple(scene.masks[i] for i in request.targets),
        kind=kind,
        sample_id=f"{style}-{number}",
    )


def _scene_with(number: int, kind: str, style: Style) -> tuple[Scene, SceneRequest]:
    """A scene that allows this kind of request: not every one has, say, an odd one out."""
    attempt = 0
    while True:
        scene = scene_of(number * 1000 + attempt, HELD_OUT_STREAM, style)
        rng = np.random.default_rng([HELD_OUT_STREAM, number, attempt])
        request = make_request(scene.objects, scene.size, kind, rng)
        if request is not None:
            return scene, request
        attempt += 1
