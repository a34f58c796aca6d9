"""Writes predictions through Label Studio's API: one for each task and version, never two."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx

from backend.label_studio import LabelStudio, LabelStudioApiError
from backend.preannotate.book import WRITING_S, Book, Reserved
from segzero_ml.errors import LabelStudioError

_PAUSE_S: Final = 1.0


def has_version(task: Mapping[str, Any], version: str) -> bool:
    """Whether a task, as Label Studio lists it, has a prediction of a version."""
    return any(one.get("model_version") == version for one in task.get("predictions", ()))


def push(
    client: LabelStudio,
    book: Book,
    project: int,
    version: str,
    predictions: Mapping[int, Mapping[str, Any]],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[int, str]:
    """Store predictions in Label Studio, of tasks that have none of this version.

    Safe to repeat, and from several processes at once: a task is reserved, looked at, and only
    then written.

    Args:
        client: Label Studio.
        book: Where tasks are reserved.
        project: Id of the project.
        version: Model version of the predictions.
        predictions: Task → `result` and `score`.
        sleep: Waits some seconds.

    Returns:
        Task → why it could not be written. Those that are gone, or had one, are left alone.

    Raises:
        LabelStudioError: Label Studio does not answer, or somebody else takes too long.
        StoreError: Redis does not answer.
    """
    waiting = list(predictions)
    problems: dict[int, str] = {}
    for _ in range(2 * WRITING_S):
        with book.writing(waiting) as reserved:
            problems |= _write_missing(client, project, version, reserved, predictions)
        waiting = [task for task in waiting if task not in set(reserved.tasks)]
        if not waiting:
            return problems
        sleep(_PAUSE_S)
    raise LabelStudioError(f"Tasks {waiting[:5]} are being written by somebody else for too long.")


def _write_missing(
    client: LabelStudio,
    project: int,
    version: str,
    reserved: Reserved,
    predictions: Mapping[int, Mapping[str, Any]],
) -> dict[int, str]:
    there = client.listing.tasks_of(project, reserved.tasks)
    bodies = [
        {
            "task": task["id"],
            "result": predictions[task["id"]]["result"],
            "score": predictions[task["id"]].get("score"),
            "model_version": version,
        }
        for task in there
        if not has_version(task, version)
    ]
    if not bodies:
        return {}
    _keep(reserved)
    reserved.is_unsure = True
    try:
        client.add_predictions(project, bodies)
        problems = {}
    except LabelStudioApiError as error:
        if error.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise
        # All or none are taken: one that is refused must not keep out the others.
        problems = _one_by_one(client, project, bodies, reserved)
    reserved.is_unsure = False
    return problems


def _one_by_one(
    client: LabelStudio, project: int, bodies: Sequence[dict[str, Any]], reserved: Reserved
) -> dict[int, str]:
    problems: dict[int, str] = {}
    for body in bodies:
        _keep(reserved)
        try:
            client.add_predictions(project, [body])
        except LabelStudioApiError as error:
            if error.status >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise
            reason = error.detail or "no reason given"
            problems[body["task"]] = f"Label Studio refuses the prediction: {reason}"
    return problems


def _keep(reserved: Reserved) -> None:
    if not reserved.renew():
        raise LabelStudioError("Writing predictions was held up; somebody else may write them now.")
