"""What happened in Label Studio, and the compact text in which a job carries it."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from segzero_ml.checks import check_id, read_time
from segzero_ml.errors import InputError

LONGEST_TEXT: Final = 400_000
"""Characters that a job carries at most: well below what the queue takes."""

_LONGEST_JSON: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Saved:
    """An annotation was created or saved anew.

    Args:
        project: Its project.
        annotation: As Label Studio sent it.
        task: Its task: `id`, `data`, `project`.
        label_config: The project's labelling config; None where the event does not hold it.
    """

    project: int
    annotation: Mapping[str, Any]
    task: Mapping[str, Any]
    label_config: str | None


@dataclass(frozen=True, slots=True)
class SavedElsewhere:
    """An annotation was saved that is not at hand: Label Studio has to be asked for it."""

    project: int
    task: int
    annotation: int


@dataclass(frozen=True, slots=True)
class AnnotationsGone:
    """Annotations were deleted; without a project, in whichever they were."""

    project: int | None
    annotations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TasksGone:
    """Tasks were deleted with all their annotations; without a project, in whichever."""

    project: int | None
    tasks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrainingAsked:
    """Somebody pressed *Start training*; `at` is when that was heard, in ISO 8601."""

    project: int
    at: str


@dataclass(frozen=True, slots=True)
class Unsure:
    """Something changed that the event does not tell: compare the project with Label Studio.

    Without a project, all of them.
    """

    project: int | None


Job = Saved | SavedElsewhere | AnnotationsGone | TasksGone | TrainingAsked
Change = Job | Unsure

_KINDS: Final[Mapping[str, type[Job]]] = {
    "saved": Saved,
    "saved_elsewhere": SavedElsewhere,
    "annotations_gone": AnnotationsGone,
    "tasks_gone": TasksGone,
    "training_asked": TrainingAsked,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def kind_of(change: Job) -> str:
    """The name of a kind of change."""
    return _NAMES[type(change)]


def pack(change: Job) -> str:
    """A change as text for a job: base64 of compressed JSON.

    Raises:
        InputError: It holds what JSON cannot say.
    """
    try:
        text = json.dumps(
            {
                "kind": kind_of(change),
                **{one.name: getattr(change, one.name) for one in fields(change)},
            },
            separators=(",", ":"),
            allow_nan=False,
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The event is no plain JSON: {type(error).__name__}.") from error
    return base64.b64encode(zlib.compress(text.encode("ascii"))).decode("ascii")


def unpack(text: str) -> Job:
    """Read what `pack` wrote.

    Raises:
        InputError: It is something else.
    """
    try:
        reader = zlib.decompressobj()
        data = reader.decompress(base64.b64decode(text, validate=True), _LONGEST_JSON)
        if not reader.eof:
            raise InputError("The event of a job is cut off or too large.")
        value = json.loads(data)
        kind = _KINDS[value.pop("kind")]
        return _checked(kind(**value))
    except (
        binascii.Error,
        zlib.error,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        raise InputError(f"The event of a job cannot be read: {type(error).__name__}.") from error


def _checked(change: Job) -> Job:
    if change.project is not None:
        check_id("The project", change.project)
    if isinstance(change, Saved):
        annotation, task, config = _untyped(change.annotation, change.task, change.label_config)
        if not isinstance(annotation, dict) or not isinstance(task, dict):
            raise InputError("The event of a job holds no annotation and task.")
        check_id("The task", change.task.get("id"))
        if config is not None and not isinstance(config, str):
            raise InputError("The event of a job holds no labelling config.")
    elif isinstance(change, SavedElsewhere):
        check_id("The annotation", change.annotation)
        check_id("The task", change.task)
    elif isinstance(change, AnnotationsGone):
        return AnnotationsGone(change.project, _ids(change.annotations))
    elif isinstance(change, TasksGone):
        return TasksGone(change.project, _ids(change.tasks))
    else:
        read_time("The time of the event", change.at)
    return change


def _untyped(*values: object) -> tuple[object, ...]:
    """What came from Redis has the types that its fields name only once it is checked."""
    return values


def _ids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise InputError("The event of a job holds no list of ids.")
    return tuple(check_id("An id", one) for one in value)
