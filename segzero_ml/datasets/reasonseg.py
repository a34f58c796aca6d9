"""ReasonSeg as it lies on disk: pairs of `X.jpg` and `X.json` in one folder per split.

A JSON file has `text` (a list of requests, of which evaluation uses the first),
`is_sentence`, and `shapes`: polygons labelled `target`, `ignore`, or something with
`flag`, which is dropped. Larger shapes are painted first, smaller ones over them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from segzero_ml.datasets import (
    MAX_LISTED_BYTES,
    Sample,
    Samples,
    checked_folder,
    checked_request,
    chosen,
)
from segzero_ml.errors import DatasetError, ImageError
from segzero_ml.images import load_image, read_size
from segzero_ml.types import ImageSize

TARGET = 1
IGNORE = 255

_MAX_COORDINATE = 1_000_000


@dataclass(frozen=True, slots=True)
class _Shape:
    """A polygon in pixels, and what it is painted as."""

    points: tuple[tuple[int, int], ...]
    value: int


@dataclass(frozen=True, slots=True)
class _Pair:
    """One checked annotation and its image."""

    image: Path
    size: ImageSize
    request: str
    shapes: tuple[_Shape, ...]
    kind: str


def read_reasonseg(root: str | Path, limit: int | None = None, seed: int = 0) -> Samples:
    """Read one split of ReasonSeg.

    Annotations and image headers of the chosen samples are checked at once; pictures are
    decoded and polygons painted when a sample is taken.

    Args:
        root: The split's folder, such as `ReasonSeg/val`.
        limit: How many samples to draw at most; None for all.
        seed: Seed of the draw.

    Returns:
        The samples in order of their names, which are their ids. Each has one mask, the
        union of its targets, or none when it has no target; `kind` is `sentence` or
        `phrase`.

    Raises:
        DatasetError: No pairs are there, or an annotation or its image is missing or
            malformed; the message names the file.
    """
    folder = checked_folder(root)
    paths = sorted(folder.glob("*.json"))
    if not paths:
        splits = sorted(entry.name for entry in folder.iterdir() if any(entry.glob("*.json")))
        remedy = f"Give one of its folders: {', '.join(splits)}." if splits else ""
        raise DatasetError(f"{folder} has no pairs of X.jpg and X.json.", remedy)
    pairs = [_read_pair(paths[index]) for index in chosen(len(paths), limit, seed)]
    return Samples([partial(_sample, pair) for pair in pairs])


def rasterise(
    polygons: list[tuple[tuple[tuple[int, int], ...], int]], size: ImageSize
) -> NDArray[np.uint8]:
    """Paint polygons, larger ones first, so that smaller ones stay visible.

    Args:
        polygons: Corners in pixels and the value to paint, for each polygon.
        size: Size of the image.

    Returns:
        uint8, shape (height, width): the value painted last, 0 where there is none.
    """
    areas = [int(np.count_nonzero(_paint(points, size))) for points, _ in polygons]
    canvas = np.zeros((size.height, size.width), dtype=np.uint8)
    for index in sorted(range(len(polygons)), key=lambda index: -areas[index]):
        points, value = polygons[index]
        canvas[_paint(points, size)] = value
    return canvas


def _paint(points: tuple[tuple[int, int], ...], size: ImageSize) -> NDArray[np.bool_]:
    """Inside and outline of a polygon, bool (height, width)."""
    image = Image.new("1", (size.width, size.height))
    draw = ImageDraw.Draw(image)
    if len(points) > 2:
        draw.polygon(points, fill=1)
    # Pillow's own outline leaves out pixels of the edge, which the benchmark counts.
    draw.line([*points, points[0]], fill=1)
    return np.array(image, dtype=np.bool_)


def _read_pair(path: Path) -> _Pair:
    value = _read_json(path)
    texts = value.get("text")
    if not isinstance(texts, list) or not texts:
        raise DatasetError(f"{path}: text must be a list with at least one request.")
    image = path.with_suffix(".jpg")
    try:
        size = read_size(image)
    except ImageError as error:
        raise DatasetError(f"{path}: {error.message}", error.remedy) from error
    return _Pair(
        image=image,
        size=size,
        request=checked_request(texts[0], str(path)),
        shapes=_read_shapes(value.get("shapes"), path),
        kind="sentence" if value.get("is_sentence") else "phrase",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_LISTED_BYTES + 1)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(raw) > MAX_LISTED_BYTES:
        raise DatasetError(f"{path}: longer than 64 MiB.")
    try:
        value = json.loads(_decode(raw))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: must be a JSON object.")
    return value


def _decode(raw: bytes) -> str:
    """Some of the published files are UTF-8, some Windows' cp1252."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252")


def _read_shapes(value: object, path: Path) -> tuple[_Shape, ...]:
    if not isinstance(value, list):
        raise DatasetError(f"{path}: shapes must be a list.")
    shapes = []
    for number, entry in enumerate(value, start=1):
        where = f"{path}, shape {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
            raise DatasetError(f"{where}: must have a label and points.")
        label = entry["label"].lower()
        if "flag" in label:
            continue
        if not any(known in label for known in ("target", "ignore")):
            raise DatasetError(f"{where}: unknown label {entry['label']!r}.")
        value_painted = IGNORE if "ignore" in label else TARGET
        shapes.append(_Shape(_read_points(entry.get("points"), where), value_painted))
    return tuple(shapes)


def _read_points(value: object, where: str) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or not value:
        raise DatasetError(f"{where}: points must be a list of [x, y].")
    return tuple(_read_point(entry, where) for entry in value)


def _read_point(value: object, where: str) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2:
        x, y = value
        if _is_coordinate(x) and _is_coordinate(y):
            return int(x), int(y)
    raise DatasetError(f"{where}: {value!r:.80} is not a point [x, y] in pixels.")


def _is_coordinate(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) <= _MAX_COORDINATE
    )


def _sample(pair: _Pair) -> Sample:
    canvas = rasterise([(shape.points, shape.value) for shape in pair.shapes], pair.size)
    target, ignore = canvas == TARGET, canvas == IGNORE
    return Sample(
        image=partial(load_image, pair.image),
        request=pair.request,
        masks=(target,) if target.any() else (),
        ignore=ignore if ignore.any() else None,
        kind=pair.kind,
        sample_id=pair.image.stem,
    )
