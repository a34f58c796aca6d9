"""Tabletop scenes as samples, made from seeds: held-out ones, and some to learn from."""

from __future__ import annotations

from functools import partial

import numpy as np

from segzero_ml.datasets import Sample, Samples
from segzero_ml.errors import DatasetError
from segzero_ml.tiny.cache import HELD_OUT_STREAM, TRAINING_STREAM, scene_of
from segzero_ml.tiny.requests import KINDS, SceneRequest, make_request
from segzero_ml.tiny.scenes import Scene, Style

SEEDS_APART = 1_000_000
"""Evaluations with different seeds share no scene below this many samples."""


def scene_samples(
    limit: int = 1000, seed: int = 0, style: Style = "plain", *, held_out: bool = True
) -> Samples:
    """Samples of scenes, every kind of request equally often.

    Args:
        limit: How many samples; each has a scene of its own.
        seed: Which samples; the same seed gives the same ones.
        style: `plain`, or `shifted` for scenes unlike those of the bundled training.
        held_out: Those that models are measured on; else those that models may learn from.

    Raises:
        DatasetError: The limit or the seed is out of range.
    """
    if not 1 <= limit <= SEEDS_APART:
        raise DatasetError(f"The limit on samples must be 1 to {SEEDS_APART}, not {limit}.")
    if seed < 0:
        raise DatasetError(f"The seed must not be negative, but it is {seed}.")
    first = seed * SEEDS_APART
    stream = HELD_OUT_STREAM if held_out else TRAINING_STREAM
    return Samples([partial(scene_sample, first + i, style, stream) for i in range(limit)])


def scene_sample(number: int, style: Style = "plain", stream: int = HELD_OUT_STREAM) -> Sample:
    """The sample of a number; its kind of request goes round with the number."""
    kind = KINDS[number % len(KINDS)]
    scene, request = _scene_with(number, kind, style, stream)
    return Sample(
        image=lambda: scene.image,
        request=request.text,
        masks=tuple(scene.masks[i] for i in request.targets),
        kind=kind,
        sample_id=f"{style}-{number}",
    )


def _scene_with(number: int, kind: str, style: Style, stream: int) -> tuple[Scene, SceneRequest]:
    """A scene that allows this kind of request: not every one has, say, an odd one out."""
    attempt = 0
    while True:
        scene = scene_of(number * 1000 + attempt, stream, style)
        rng = np.random.default_rng([stream, number, attempt])
        request = make_request(scene.objects, scene.size, kind, rng)
        if request is not None:
            return scene, request
        attempt += 1
