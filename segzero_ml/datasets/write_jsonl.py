"""Writes what `segzero_ml.datasets.jsonl` reads, with nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

from segzero_ml import masks
from segzero_ml.datasets import MAX_LISTED_BYTES
from segzero_ml.datasets.jsonl import FILE_NAME
from segzero_ml.datasets.writing import IMAGES, Item, check_length, decoded, write_new


class JsonlWriter:
    """A folder with `requests.jsonl` and `images/`: a line for each request.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._images = folder / IMAGES
        self._images.mkdir()
        self._lines = (folder / FILE_NAME).open("xb")

    def add(self, item: Item) -> bool:
        """Write an item; see `Writer`."""
        name = f"{item.name}{item.picture.suffix}"
        lines = []
        for answer in item.answers:
            for segment in answer.segments:
                decoded(item, segment.rle)
            line = {
                "image": f"{IMAGES}/{name}",
                "request": answer.request,
                "masks": [masks.to_json(segment.rle) for segment in answer.segments],
                "kind": item.kind,
            }
            data = json.dumps(line, ensure_ascii=False).encode()
            lines.append(check_length(data, MAX_LISTED_BYTES - 1))
        if not write_new(self._images / name, item.picture.data):
            return False
        self._lines.writelines(line + b"\n" for line in lines)
        return True

    def close(self) -> None:
        """Complete the files."""
        self._lines.close()
