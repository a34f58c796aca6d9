"""Drawn scenes kept on disk, so that a training step never waits for drawing.

Training scenes come from a random stream of their own: no seed of it can meet a held-out
scene (see `segzero_ml.datasets.scenes`).
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from segzero_ml.tiny.scenes import COLOURS, SHAPES, Scene, SceneObject, Style, make_scene
from segzero_ml.types import Box, Point

TRAINING_STREAM = 1
HELD_OUT_STREAM = 2
MAX_OBJECTS = 6
_COLOUR_NAMES = tuple(COLOURS)
_FIELDS = 12  # cx cy diameter x1 y1 x2 y2 px py area shape colour
_CHUNK = 250


@dataclass(frozen=True)
class SceneCache:
    """N drawn scenes.

    Args:
        images: uint8, (N, side, side, 3): scenes squashed to a square.
        labels: uint8, (N, side, side): 0 background, k the k-th object.
        facts: float32, (N, 6, 12): per object its `SceneObject`, in original pixels.
        counts: uint8, (N,): objects in each scene.
        sizes: int32, (N, 2): original width and height.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    facts: NDArray[np.float32]
    counts: NDArray[np.uint8]
    sizes: NDArray[np.int32]

    def objects(self, index: int) -> list[SceneObject]:
        """The objects of one scene, in the order they were drawn."""
        return [_unpack(row) for row in self.facts[index, : self.counts[index]]]


def scene_of(seed: int, stream: int, style: Style = "plain") -> Scene:
    """The scene of a seed in one of the streams."""
    return make_scene(np.random.default_rng([stream, seed]), style)


def load_or_draw(folder: Path, count: int, side: int, workers: int = 2) -> SceneCache:
    """Reads the cache, drawing it first where it is missing.

    Args:
        folder: Where caches are kept.
        count: Number of training scenes.
        side: Side of the squashed pictures in pixels.
        workers: Processes that draw.
    """
    path = folder / f"scenes-{side}-{count}"
    names = ("images", "labels", "facts", "counts", "sizes")
    if not (path / "done").exists():
        path.mkdir(parents=True, exist_ok=True)
        starts = range(0, count, _CHUNK)
        with ProcessPoolExecutor(workers) as pool:
            jobs = [pool.submit(_draw, s, min(_CHUNK, count - s), side) for s in starts]
            parts = [job.result() for job in track(jobs, description="Drawing scenes")]
        for name, arrays in zip(names, zip(*parts, strict=True), strict=True):
            np.save(path / f"{name}.npy", np.concatenate(arrays))
        (path / "done").touch()
    return SceneCache(*(np.load(path / f"{name}.npy", mmap_mode="r") for name in names))


def _draw(start: int, count: int, side: int) -> tuple[NDArray[np.generic], ...]:
    images = np.zeros((count, side, side, 3), np.uint8)
    labels = np.zeros((count, side, side), np.uint8)
    facts = np.zeros((count, MAX_OBJECTS, _FIELDS), np.float32)
    counts = np.zeros(count, np.uint8)
    sizes = np.zeros((count, 2), np.int32)
    for i in range(count):
        scene = scene_of(start + i, TRAINING_STREAM)
        images[i] = np.asarray(scene.image.resize((side, side), Image.Resampling.BICUBIC))
        for k, mask in enumerate(scene.masks):
            small = Image.fromarray(mask).convert("L").resize((side, side), Image.Resampling.BOX)
            labels[i][np.asarray(small) >= 128] = k + 1
        facts[i, : len(scene.objects)] = [_pack(o) for o in scene.objects]
        counts[i] = len(scene.objects)
        sizes[i] = scene.size.width, scene.size.height
    return images, labels, facts, counts, sizes


def _pack(o: SceneObject) -> list[float]:
    names = (SHAPES.index(o.shape), _COLOUR_NAMES.index(o.colour))
    point = (o.point_px.x, o.point_px.y)
    return [
        o.center_px.x,
        o.center_px.y,
        o.diameter_px,
        *o.box_px.as_tuple(),
        *point,
        o.area_px,
        *names,
    ]


def _unpack(row: NDArray[np.float32]) -> SceneObject:
    cx, cy, diameter, x1, y1, x2, y2, px, py, area, shape, colour = (float(v) for v in row)
    return SceneObject(
        shape=SHAPES[int(shape)],
        colour=_COLOUR_NAMES[int(colour)],
        center_px=Point(cx, cy),
        diameter_px=diameter,
        angle_deg=0.0,
        box_px=Box(x1, y1, x2, y2),
        point_px=Point(px, py),
        area_px=int(area),
    )
