"""Writes what `segzero_ml.datasets.reasonseg` reads: a pair of `X.jpg` and `X.json` a request.

The format knows one region a request and no objects, so the masks of a request are joined; its
polygons give that union back exactly, holes included. Pictures that are no JPEG are compressed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segzero_ml import masks
from segzero_ml.datasets import MAX_LISTED_BYTES
from segzero_ml.datasets.polygons import polygons
from segzero_ml.datasets.writing import Item, TrueAnswer, check_length, decoded, write_new
from segzero_ml.errors import DatasetError

MAX_POLYGONS = 2000
"""Of one request: a reader paints each on a canvas of its own."""

_SENTENCE_ENDS = (".", "?", "!")


class ReasonSegWriter:
    """A folder of pairs, as one split of ReasonSeg is.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, item: Item) -> bool:
        """Write an item, whose picture must be a JPEG; see `Writer`.

        Raises:
            DatasetError: Also for a mask of more than `MAX_POLYGONS` pieces.
        """
        pairs = []
        for number, answer in enumerate(item.answers, start=1):
            name = f"{item.name}-{number}"
            text = json.dumps(_entry(item, answer, f"{name}.jpg")).encode()
            pairs.append((name, check_length(text, MAX_LISTED_BYTES)))
        for name, text in pairs:
            if not write_new(self._folder / f"{name}.jpg", item.picture.data):
                return False
            write_new(self._folder / f"{name}.json", text)
        return True

    def close(self) -> None:
        """Every pair is complete already."""


def _entry(item: Item, answer: TrueAnswer, image_name: str) -> dict[str, Any]:
    union = masks.union(
        (decoded(item, segment.rle) for segment in answer.segments), item.picture.size
    )
    shapes = polygons(union)
    if len(shapes) > MAX_POLYGONS:
        raise DatasetError(
            f"Its mask is in {len(shapes)} pieces; as polygons at most {MAX_POLYGONS} are read "
            "in reasonable time.",
            "The formats jsonl and coco take any mask.",
        )
    return {
        "text": [answer.request],
        "is_sentence": answer.request.rstrip().endswith(_SENTENCE_ENDS),
        "shapes": [
            {
                "label": "target",
                "labels": ["target"],
                "shape_type": "polygon",
                "image_name": image_name,
                "points": points,
                "group_id": None,
                "group_ids": [None],
                "flags": {},
            }
            for points in shapes
        ],
    }
