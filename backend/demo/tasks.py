"""The demo's pictures: chosen, uploaded with their requests, and compared with the truth."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from backend.brush import decode_rle
from backend.label_studio import LabelStudio
from backend.label_studio_models import StoredPrediction, Task
from segzero_ml import masks
from segzero_ml.datasets import Sample
from segzero_ml.types import BoolMask, ImageSize

RETRIEVE_AT_ONCE: Final = 4
"""Tasks in one "retrieve predictions": few, so that progress shows and none waits long."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One task and what came back.

    Args:
        task_id: Label Studio's number of it.
        request: What was asked for.
        note: The model's reasons; empty without a prediction.
        score: The prediction's score, or None.
        iou: IoU of all its masks with the true ones, 1.0 if both are empty; None without a
            prediction.
        has_target: Whether something in the picture matches.
    """

    task_id: int
    request: str
    note: str
    score: float | None
    iou: float | None
    has_target: bool


def import_samples(client: LabelStudio, project_id: int, samples: Sequence[Sample]) -> list[int]:
    """Upload the pictures and make a task of each, with its request; returns the task ids."""
    files = [(f"{_name(sample)}.png", _png(sample), "image/png") for sample in samples]
    uploads = client.upload_files(project_id, files)
    data = [
        {
            "image": upload.address,
            "request": sample.request,
            "kind": sample.kind,
            "scene": sample.sample_id,
        }
        for upload, sample in zip(uploads, samples, strict=True)
    ]
    return client.import_tasks(project_id, data)


def scene_of(task: Task) -> str:
    """Which sample a task was made of; empty for a task from elsewhere."""
    return str(task.data.get("scene", ""))


def retrieve_all(
    client: LabelStudio,
    project_id: int,
    task_ids: Sequence[int],
    model_version: str | None,
    progress: Callable[[int], None] | None = None,
    *,
    once: bool = False,
) -> None:
    """Have Label Studio retrieve predictions for the tasks, as its Data Manager does.

    On a busy machine some may not be ready when Label Studio stops waiting; they are asked
    for again one by one, as long as that brings some.

    Args:
        client: The Label Studio.
        project_id: The project.
        task_ids: The tasks.
        model_version: The version that the backend reports.
        progress: Called with the number of tasks asked for so far.
        once: Ask no second time: where time is not short, a model that did not answer will
            not answer again.
    """
    waiting, at_once = list(task_ids), RETRIEVE_AT_ONCE
    while waiting:
        for start in range(0, len(waiting), at_once):
            batch = waiting[start : start + at_once]
            client.retrieve_predictions(project_id, batch)
            if progress is not None:
                progress(len(task_ids) - len(waiting) + start + len(batch))
        if once:
            return
        tasks = client.tasks(project_id)
        have = {task.id for task in tasks if newest_prediction(task, model_version) is not None}
        missing = [task_id for task_id in waiting if task_id not in have]
        if at_once == 1 and len(missing) == len(waiting):
            return
        waiting, at_once = missing, 1


def newest_prediction(task: Task, model_version: str | None) -> StoredPrediction | None:
    """The newest prediction of a version that a task holds."""
    found = [one for one in task.predictions if one.model_version == model_version]
    return max(found, key=lambda prediction: prediction.id, default=None)


def outcome(task: Task, sample: Sample, model_version: str | None) -> Outcome:
    """Compare a task's newest prediction of a version with the sample it was made of.

    Raises:
        MaskError: A stored mask cannot be read.
    """
    newest = newest_prediction(task, model_version)
    picture = sample.image()
    size = ImageSize(picture.width, picture.height)
    iou = None
    if newest is not None:
        iou = masks.iou(predicted_mask(newest, size), masks.union(sample.masks, size))
    return Outcome(
        task_id=task.id,
        request=sample.request,
        note="" if newest is None else note_of(newest),
        score=None if newest is None else newest.score,
        iou=iou,
        has_target=bool(sample.masks),
    )


def predicted_mask(prediction: StoredPrediction, size: ImageSize) -> BoolMask:
    """All brush regions of a prediction together.

    Raises:
        MaskError: A region's run lengths are malformed or of another size.
    """
    regions = [item["value"] for item in prediction.result if item.get("type") == "brushlabels"]
    return masks.union(
        (decode_rle(value["rle"], size.height, size.width) for value in regions), size
    )


def note_of(prediction: StoredPrediction) -> str:
    """What a prediction puts into the notes."""
    texts = [item["value"]["text"] for item in prediction.result if item.get("type") == "textarea"]
    return " ".join(" ".join(text) if isinstance(text, list) else text for text in texts)


def _name(sample: Sample) -> str:
    return "".join(c if c.isalnum() else "-" for c in sample.sample_id) or "scene"


def _png(sample: Sample) -> bytes:
    buffer = io.BytesIO()
    sample.image().save(buffer, "PNG")
    return buffer.getvalue()
