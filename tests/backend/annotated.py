"""Tasks, predictions and annotations with the shapes that Label Studio 1.23 sends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from backend.annotations import NoCorrection, to_correction
from backend.brush import encode_rle
from backend.labelling import Labelling, parse_config
from backend.templates import labelling_config
from segzero_ml import masks
from segzero_ml.corrections import Correction
from segzero_ml.types import BoolMask, Rle

WIDTH, HEIGHT = 40, 24
STUDIO = "http://label-studio.example"
LABELLING = parse_config(labelling_config())
CLASSES = parse_config(labelling_config(["Cat", "Dog"], request_field=None))

_ids = itertools.count(1)


def disc(x: int, y: int, radius: int = 5) -> BoolMask:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    inside: BoolMask = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return inside


RING, STAR, CROSS = disc(8, 8), disc(30, 8), disc(20, 18)


def rle(mask: BoolMask) -> Rle:
    return masks.encode(mask)


def brush(mask: BoolMask, label: str = "Object", **changes: Any) -> dict[str, Any]:
    """A brush region with an id of its own."""
    return {
        "id": f"region{next(_ids):04d}",
        "from_name": "brush",
        "to_name": "image",
        "type": "brushlabels",
        "origin": "manual",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_rle(mask), "brushlabels": [label]},
        **changes,
    }


def text(control: str, *lines: str) -> dict[str, Any]:
    """What stands in a TextArea."""
    return {
        "id": f"text{next(_ids):04d}",
        "from_name": control,
        "to_name": "image",
        "type": "textarea",
        "origin": "manual",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "meta": {"lead_time": 3.2},
        "value": {"text": list(lines)},
    }


def predicted(
    mask: BoolMask, label: str = "Object", note: str = "", request: str = "", **changes: Any
) -> dict[str, Any]:
    """A brush region as this backend predicts it."""
    meta: dict[str, Any] = {"text": [note]} if note else {}
    if request:
        meta |= {"request": request, "model_version": "tiny-2"}
    region = brush(mask, label, score=0.91, **changes)
    del region["origin"]
    return {**region, "meta": meta} if meta else region


def kept(region: dict[str, Any], mask: BoolMask | None = None, **changes: Any) -> dict[str, Any]:
    """A region of a prediction as the editor submits it, changed if there is a mask."""
    origin = "prediction" if mask is None else "prediction-changed"
    value = dict(region["value"])
    if mask is not None:
        value["rle"] = encode_rle(mask)
    return {**region, "origin": origin, "value": value, **changes}


def prediction(*results: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": 501,
        "model_version": "tiny-1",
        "created_ago": "2 minutes",
        "result": list(results),
        "score": 0.91,
        "cluster": None,
        "neighbors": None,
        "mislabeling": 0.0,
        "created_at": "2026-03-04T05:00:00.000000Z",
        "updated_at": "2026-03-04T05:00:00.000000Z",
        "task": 31,
        "project": 7,
        **changes,
    }


def annotation(*results: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An annotation as in the body of a webhook."""
    return {
        "id": 901,
        "result": list(results),
        "completed_by": 3,
        "updated_by": 3,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-03-04T05:06:00.000000Z",
        "updated_at": "2026-03-04T05:06:07.891234Z",
        "draft_created_at": None,
        "lead_time": 12.5,
        "prediction": {},
        "result_count": len(results),
        "unique_id": "6d4c0f3e-5f7b-4a53-9d3c-6f7d0f0a1b2c",
        "import_id": None,
        "last_action": None,
        "bulk_created": False,
        "task": 31,
        "project": 7,
        "parent_prediction": None,
        "parent_annotation": None,
        "last_created_by": None,
        **changes,
    }


def task(**data: Any) -> dict[str, Any]:
    return {
        "id": 31,
        "data": {"image": "/data/upload/7/scene.png", "request": "the ring", **data},
        "meta": {},
        "created_at": "2026-03-04T04:00:00.000000Z",
        "updated_at": "2026-03-04T05:06:07.900000Z",
        "is_labeled": True,
        "overlap": 1,
        "inner_id": 1,
        "total_annotations": 1,
        "cancelled_annotations": 0,
        "total_predictions": 1,
        "project": 7,
    }


def correct(
    result: Sequence[dict[str, Any]],
    came_from: dict[str, Any] | None = None,
    labelling: Labelling = LABELLING,
    on: dict[str, Any] | None = None,
    **options: Any,
) -> Correction:
    """The correction that an annotation with these results makes."""
    made = to_correction(annotation(*result), on or task(), came_from, labelling, STUDIO, **options)
    assert isinstance(made, Correction), made
    return made


def no_correction(made: Correction | NoCorrection) -> NoCorrection:
    assert isinstance(made, NoCorrection), made
    return made
