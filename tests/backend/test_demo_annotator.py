"""The simulated annotator: what it submits is what an editor would, and reads as what it meant."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from backend.annotations import NoCorrection, to_correction
from backend.demo.annotator import Truth, annotate, brush_of, corrected
from backend.label_studio import LabelStudio
from backend.label_studio_models import Task
from backend.labelling import parse_config
from backend.templates import labelling_config
from backend.translate import Labelled, to_task_result
from segzero_ml import masks
from segzero_ml.corrections import Correction, Verdict
from segzero_ml.types import BoolMask, Box, ImageSize, Prediction, Segment

SIZE = ImageSize(40, 30)
LABELLING = parse_config(labelling_config())
BRUSH = brush_of(labelling_config())
REQUEST = "the red star"


def square(left: int, top: int, side: int = 10) -> BoolMask:
    mask = np.zeros((SIZE.height, SIZE.width), dtype=np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


LEFT, RIGHT = square(2, 2), square(25, 15)
NEARLY = LEFT & (np.arange(SIZE.height)[:, None] < 11)  # 9 of 10 rows


def task(number: int, *predicted: BoolMask, annotated: bool = False) -> Task:
    segments = tuple(Segment(Box(0, 0, 40, 30), (), masks.encode(one), 0.5) for one in predicted)
    answer = Prediction(REQUEST, SIZE, "It is red.", segments, 0.25, "v1")
    stored = {"id": 100 + number, **to_task_result([Labelled(answer, "Object")], LABELLING)}
    annotations = [{"id": 1, "result": []}] if annotated else []
    data = {"image": "/data/a.png", "request": REQUEST}
    return Task.model_validate(
        {"id": number, "data": data, "predictions": [stored], "annotations": annotations}
    )


class Studio:
    """Takes annotations."""

    def __init__(self) -> None:
        self.taken: dict[int, Mapping[str, Any]] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        number = int(request.url.path.split("/")[3])
        self.taken[number] = json.loads(request.content)
        return httpx.Response(201, json={"id": 7, "result": self.taken[number]["result"]})


def submit(studio: Studio, tasks: Sequence[Task], truths: Mapping[int, Truth], most: int) -> Any:
    with LabelStudio("http://a.b", "token", transport=httpx.MockTransport(studio)) as client:
        return annotate(client, tasks, truths, BRUSH, "v1", most)


def read(given: Task, body: Mapping[str, Any]) -> Correction:
    """The correction that this backend makes of what was submitted."""
    annotation = {**body, "id": 7, "updated_at": "2026-01-02T03:04:05Z", "project": 3}
    prediction = given.predictions[0].model_dump()
    found = to_correction(annotation, given.model_dump(), prediction, LABELLING, "here")
    assert not isinstance(found, NoCorrection)
    return found


@pytest.mark.parametrize(
    ("predicted", "true", "verdict"),
    [
        ((LEFT,), (LEFT,), Verdict.ACCEPTED),
        ((NEARLY,), (LEFT,), Verdict.ACCEPTED),
        ((), (), Verdict.ACCEPTED),
        ((square(4, 4),), (LEFT,), Verdict.EDITED),
        ((LEFT, RIGHT), (RIGHT,), Verdict.EDITED),
        ((LEFT,), (LEFT, RIGHT), Verdict.EDITED),
        ((LEFT,), (RIGHT,), Verdict.REJECTED),
        ((), (RIGHT,), Verdict.REJECTED),
        ((LEFT,), (), Verdict.NOTHING_HERE),
    ],
)
def test_what_it_submits_is_read_as_the_exact_truth(
    predicted: tuple[BoolMask, ...], true: tuple[BoolMask, ...], verdict: Verdict
) -> None:
    studio, given = Studio(), task(1, *predicted)
    [done] = submit(studio, [given], {1: Truth(SIZE, true)}, 1)
    found = read(given, studio.taken[1])
    assert found.verdict is verdict
    assert done.accepted == (verdict is Verdict.ACCEPTED)
    kept = predicted if done.accepted else true
    assert [np.asarray(masks.decode(one)) for one in found.truth(REQUEST)] == [
        pytest.approx(one) for one in kept
    ]
    assert found.requests == (REQUEST,)
    assert found.note_edited == "It is red."
    assert found.lead_time_s is not None
    assert found.lead_time_s > 0
    assert found.model_version == "v1"


def test_a_repainted_region_keeps_its_id_and_a_drawn_one_gets_its_own() -> None:
    given = task(1, square(4, 4)).predictions[0]
    mended, drawn, note = corrected(given, Truth(SIZE, (LEFT, RIGHT)), BRUSH)
    assert mended["id"] == given.result[0]["id"]
    assert (mended["origin"], drawn["origin"], note["type"]) == (
        "prediction-changed",
        "manual",
        "textarea",
    )
    assert drawn["id"] not in {one["id"] for one in given.result}


def test_it_stops_after_so_many_corrections_and_passes_over_what_is_done_or_unknown() -> None:
    studio = Studio()
    tasks = [
        task(1, RIGHT),
        task(2, LEFT),  # right: does not count
        task(3, RIGHT, annotated=True),
        task(4, RIGHT),  # nobody knows what is true
        task(5, RIGHT),
        task(6, RIGHT),
    ]
    truths = {number: Truth(SIZE, (LEFT,)) for number in (1, 2, 3, 5, 6)}
    done = submit(studio, tasks, truths, 2)
    assert [one.task for one in done] == [1, 2, 5]
    assert sorted(studio.taken) == [1, 2, 5]


def test_predictions_of_another_version_are_not_shown() -> None:
    studio = Studio()
    old = task(1, LEFT)
    older = old.predictions[0].model_copy(update={"model_version": "v0"})
    [done] = submit(
        studio, [old.model_copy(update={"predictions": [older]})], {1: Truth(SIZE, (LEFT,))}, 1
    )
    assert (done.iou, done.accepted) == (0.0, False)
    assert studio.taken[1]["parent_prediction"] is None
    assert [one["origin"] for one in studio.taken[1]["result"]] == ["manual"]
