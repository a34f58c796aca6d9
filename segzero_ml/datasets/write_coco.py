"""Writes instances as COCO has them: `annotations/instances.json` beside `images/`.

```
{"info": {…}, "licenses": [],
 "images":      [{"id", "file_name", "width", "height", "requests": [text, …]}, …],
 "annotations": [{"id", "image_id", "category_id", "segmentation": {"size", "counts"},
                  "area", "bbox": [x, y, width, height], "iscrowd": 0, "request": text}, …],
 "categories":  [{"id", "name", "supercategory": ""}, …]}
```

A category is a label. Masks are compressed run lengths, exact and with their holes; they stand
for single objects, so `iscrowd` is 0: evaluation ignores what is marked as a crowd. `requests`
and `request` are this project's own; a request that no annotation names is one that nothing in
the image matches.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from segzero_ml import masks
from segzero_ml.datasets.writing import IMAGES, Item, TrueSegment, decoded, write_new
from segzero_ml.types import Box

FILE_NAME = "annotations/instances.json"

NO_LABEL = "object"
"""Category of objects without a label."""


class CocoWriter:
    """A folder in COCO's form.

    Args:
        folder: An empty folder.
        description: What the file says about itself.
    """

    def __init__(self, folder: Path, description: str = "") -> None:
        self._images = folder / IMAGES
        self._images.mkdir()
        path = folder / FILE_NAME
        path.parent.mkdir()
        # Annotations come last in the file, but are known one by one: they wait in another.
        self._file = path.open("x+", encoding="utf-8")
        self._aside = path.with_suffix(".part").open("x+", encoding="utf-8")
        self._categories: dict[str, int] = {}
        self._counts = [0, 0]
        info = {"description": description, "version": "1.0"}
        self._file.write(f'{{"info": {_json(info)}, "licenses": [], "images": [')

    def add(self, item: Item) -> bool:
        """Write an item; see `Writer`."""
        found = [
            (segment, answer.request, _shape(item, segment))
            for answer in item.answers
            for segment in answer.segments
        ]
        name = f"{item.name}{item.picture.suffix}"
        if not write_new(self._images / name, item.picture.data):
            return False
        self._counts[0] += 1
        number = self._counts[0]
        self._append(self._file, number, self._image(item, number, name))
        for segment, request, (area, box_px) in found:
            self._counts[1] += 1
            entry = {
                "id": self._counts[1],
                "image_id": number,
                "category_id": self._category(segment.label),
                "segmentation": masks.to_json(segment.rle),
                "area": area,
                "bbox": [box_px.x1, box_px.y1, box_px.width, box_px.height],
                "iscrowd": 0,
                "request": request,
            }
            self._append(self._aside, self._counts[1], entry)
        return True

    def close(self) -> None:
        """Complete the file."""
        with self._file as file, self._aside as aside:
            file.write('\n], "annotations": [')
            aside.seek(0)
            shutil.copyfileobj(aside, file)
            file.write('\n], "categories": ')
            file.write(_json(_named(self._categories.items())))
            file.write("}\n")
        Path(self._aside.name).unlink()

    @staticmethod
    def _image(item: Item, number: int, name: str) -> dict[str, Any]:
        return {
            "id": number,
            "file_name": name,
            "width": item.picture.size.width,
            "height": item.picture.size.height,
            "requests": [answer.request for answer in item.answers],
        }

    @staticmethod
    def _append(file: IO[str], number: int, entry: dict[str, Any]) -> None:
        file.write(f"{',' if number > 1 else ''}\n{_json(entry)}")

    def _category(self, label: str) -> int:
        return self._categories.setdefault(label or NO_LABEL, len(self._categories) + 1)


def _shape(item: Item, segment: TrueSegment) -> tuple[int, Box]:
    """Area and box of a mask that is checked."""
    mask = decoded(item, segment.rle)
    return int(np.count_nonzero(mask)), masks.bounding_box_px(mask) or Box(0, 0, 0, 0)


def _named(categories: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"id": number, "name": name, "supercategory": ""} for name, number in categories]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
