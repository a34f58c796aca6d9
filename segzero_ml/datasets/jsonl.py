"""Your own data: `requests.jsonl` beside the images, one JSON object a line.

```
{"image": "shelf/001.jpg", "request": "the cup", "masks": [{"size": [480, 640], "counts": "…"}]}
{"image": "shelf/001.jpg", "request": "the dog", "masks": [], "kind": "absent"}
```

`image` is relative to the folder and stays inside it; `masks` are COCO's compressed run
lengths in the upright image's size, one per object, none when nothing matches; `kind` is
optional and groups the figures. Blank lines are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segzero_ml import masks
from segzero_ml.datasets import (
    MAX_LISTED_BYTES,
    Sample,
    Samples,
    checked_folder,
    checked_request,
    chosen,
)
from segzero_ml.errors import DatasetError, ImageError, MaskError
from segzero_ml.images import load_image, read_size
from segzero_ml.types import Rle

FILE_NAME = "requests.jsonl"

_REQUIRED = frozenset({"image", "request", "masks"})
_OPTIONAL = frozenset({"kind"})


@dataclass(frozen=True, slots=True)
class _Line:
    """One checked line; `where` is its file and number."""

    where: str
    number: int
    image: Path
    request: str
    rles: tuple[Rle, ...]
    kind: str


def read_jsonl(root: str | Path, limit: int | None = None, seed: int = 0) -> Samples:
    """Read a folder with a `requests.jsonl`.

    Every line is checked first, and of the chosen ones the image's header and the masks'
    sizes; pictures and masks are decoded when a sample is taken.

    Args:
        root: The folder.
        limit: How many samples to draw at most; None for all.
        seed: Seed of the draw.

    Returns:
        The samples in the file's order; their ids are line numbers.

    Raises:
        DatasetError: The folder or file is missing or empty, or a line is not as described
            above; the message names the file and the line. Damaged mask text is found only
            when its sample is taken.
    """
    folder = checked_folder(root)
    path = folder / FILE_NAME
    lines = [_read_line(text, path, number, folder) for number, text in _texts(path)]
    if not lines:
        raise DatasetError(f"{path} has no lines.")
    picked = [lines[index] for index in chosen(len(lines), limit, seed)]
    for line in picked:
        _check_sizes(line)
    return Samples([partial(_sample, line) for line in picked])


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    number = 0
    try:
        with path.open("rb") as file:
            while raw := file.readline(MAX_LISTED_BYTES + 1):
                number += 1
                if len(raw) > MAX_LISTED_BYTES:
                    raise DatasetError(f"{path}, line {number}: longer than 64 MiB.")
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, text
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}, line {number}: not UTF-8 text.") from error
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror or error}.",
            'Its lines are {"image": …, "request": …, "masks": [COCO RLE, …]}.',
        ) from error


def _read_line(text: str, path: Path, number: int, folder: Path) -> _Line:
    where = f"{path}, line {number}"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{where}: must be a JSON object.")
    _check_keys(value, where)
    if not isinstance(value["masks"], list):
        raise DatasetError(f"{where}: masks must be a list, empty when nothing matches.")
    kind = value.get("kind", "")
    if not isinstance(kind, str):
        raise DatasetError(f"{where}: kind must be text.")
    try:
        rles = tuple(masks.from_json(entry) for entry in value["masks"])
    except MaskError as error:
        raise DatasetError(f"{where}: {error.message}", error.remedy) from error
    return _Line(
        where=where,
        number=number,
        image=_image_path(value["image"], where, folder),
        request=checked_request(value["request"], where),
        rles=rles,
        kind=kind,
    )


def _check_keys(value: dict[str, Any], where: str) -> None:
    if missing := sorted(_REQUIRED - set(value)):
        raise DatasetError(f"{where}: {', '.join(missing)} missing.")
    if unknown := sorted(set(value) - _REQUIRED - _OPTIONAL):
        raise DatasetError(
            f"{where}: unknown key {', '.join(unknown)}.",
            f"Known are {', '.join(sorted(_REQUIRED | _OPTIONAL))}.",
        )


def _image_path(value: object, where: str, folder: Path) -> Path:
    if not isinstance(value, str) or not value:
        raise DatasetError(f"{where}: image must be a path.")
    try:
        path = (folder / value).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # NUL, surrogates, a loop of links
        raise DatasetError(f"{where}: the image {value!r} is not a path.") from error
    if Path(value).is_absolute() or not path.is_relative_to(folder):
        raise DatasetError(
            f"{where}: the image {value} is outside of {folder}.",
            "Give a path inside the folder, relative to it.",
        )
    return path


def _check_sizes(line: _Line) -> None:
    try:
        size = read_size(line.image)
    except ImageError as error:
        raise DatasetError(f"{line.where}: {error.message}", error.remedy) from error
    for rle in line.rles:
        if (rle.width, rle.height) != (size.width, size.height):
            raise DatasetError(
                f"{line.where}: a mask is {rle.width} x {rle.height} pixels, its image "
                f"{size.width} x {size.height}.",
                "The size of a mask is [height, width] of the upright image.",
            )


def _sample(line: _Line) -> Sample:
    try:
        decoded = tuple(masks.decode(rle) for rle in line.rles)
    except MaskError as error:
        raise DatasetError(f"{line.where}: {error.message}", error.remedy) from error
    return Sample(
        image=partial(load_image, line.image),
        request=line.request,
        masks=decoded,
        kind=line.kind,
        sample_id=str(line.number),
    )
