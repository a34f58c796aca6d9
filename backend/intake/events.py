"""From the body of a webhook to what happened, as Label Studio 1.23 sends it.

| Event | holds |
|---|---|
| ANNOTATION_CREATED, ANNOTATION_UPDATED | `annotation`, `task`, `project` |
| ANNOTATIONS_CREATED | the same, `annotation` and `task` being lists |
| ANNOTATIONS_DELETED | `annotations`: `[{"id"}]`, `project` |
| TASKS_CREATED | `tasks`, `project`; annotations that came with them are not told |
| TASKS_DELETED | `tasks`: `[{"id"}]`; `project` unless all tasks of a project were deleted |
| PROJECT_UPDATED, START_TRAINING | `project` |

Predictions are never in there: an annotation names its own by id (`parent_prediction`), and
its field `prediction` is empty but for old annotations. A webhook without payload holds the
action alone: then, and wherever something is missing, the project has to be compared with
Label Studio. Each name is understood in the singular and in the plural.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from backend.errors import BodyError
from backend.intake.changes import (
    AnnotationsGone,
    Change,
    Saved,
    SavedElsewhere,
    TasksGone,
    TrainingAsked,
    Unsure,
)
from segzero_ml.checks import MAX_ID

_LONGEST_ACTION: Final = 100
_SPARE_DEPTH: Final = 500
_OF_A_TASK: Final = ("id", "data", "project")


@dataclass(frozen=True, slots=True)
class Event:
    """One webhook.

    Args:
        action: The name of the event.
        changes: What happened; None where the event means nothing to this backend.
    """

    action: str
    changes: tuple[Change, ...] | None


def read_event(data: bytes, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Event:
    """Read the body of a webhook.

    Args:
        data: The body as received.
        now: When it was received.

    Raises:
        BodyError: No JSON, nested too deeply, with NaN or infinity, or of other types than
            Label Studio sends.
    """
    body = _json(data)
    action = body.get("action") if isinstance(body, Mapping) else None
    if not isinstance(action, str) or not 0 < len(action) <= _LONGEST_ACTION:
        raise BodyError("The body must be a JSON object whose action is a name.")
    read = _READERS.get(action)
    return Event(action, None if read is None else read(body, now))


def _json(data: bytes) -> Any:
    """Read JSON as Label Studio writes it, even text with half a character in it."""
    try:
        value: Any = json.loads(data, parse_constant=_no_constant)
        # What could not be written again on its way is better refused now than lost later:
        # numbers so great that they are read as infinity, and what is nested deeply.
        within = value
        for _ in range(_SPARE_DEPTH):
            within = [within]
        json.dumps(within, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise BodyError(f"The body is not JSON: {type(error).__name__}.") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _saved(body: Mapping[str, Any], _: Callable[[], datetime]) -> tuple[Change, ...]:
    project = _project(body)
    annotations, tasks = _objects(body, "annotation"), _objects(body, "task") or ()
    if annotations is None:
        return (Unsure(project),)
    about = body.get("project")
    config = about.get("label_config") if isinstance(about, Mapping) else None
    if config is not None and not isinstance(config, str):
        raise BodyError("The label_config of the project must be text.")
    by_id = {_id("task", task): task for task in tasks}
    return tuple(_one_saved(one, by_id, project, config) for one in annotations)


def _one_saved(
    annotation: Mapping[str, Any],
    tasks: Mapping[int, Mapping[str, Any]],
    project: int | None,
    config: str | None,
) -> Change:
    number = _id("annotation", annotation)
    project = _optional_id(annotation, "project") or project
    if project is None:
        return Unsure(None)
    task_id = _optional_id(annotation, "task")
    if task_id is None and len(tasks) == 1:
        [task_id] = tasks
    if task_id is None:
        return Unsure(project)
    task = tasks.get(task_id)
    if task is None or not isinstance(task.get("data"), Mapping):
        return SavedElsewhere(project, task_id, number)
    kept = {name: task[name] for name in _OF_A_TASK if name in task}
    return Saved(project, annotation, kept, config)


def _annotations_gone(body: Mapping[str, Any], _: Callable[[], datetime]) -> tuple[Change, ...]:
    project, gone = _project(body), _objects(body, "annotation")
    if not gone:
        return (Unsure(project),)
    return (AnnotationsGone(project, _ids("annotation", gone)),)


def _tasks_gone(body: Mapping[str, Any], _: Callable[[], datetime]) -> tuple[Change, ...]:
    project, gone = _project(body), _objects(body, "task")
    return (TasksGone(project, _ids("task", gone)),) if gone else (Unsure(project),)


def _unsure(body: Mapping[str, Any], _: Callable[[], datetime]) -> tuple[Change, ...]:
    return (Unsure(_project(body)),)


def _training(body: Mapping[str, Any], now: Callable[[], datetime]) -> tuple[Change, ...]:
    project = _project(body)
    if project is None:
        raise BodyError("START_TRAINING must name its project.")
    return (TrainingAsked(project, now().isoformat()),)


_Reader = Callable[[Mapping[str, Any], Callable[[], datetime]], tuple[Change, ...]]
_READERS: Final[Mapping[str, _Reader]] = {
    "ANNOTATION_CREATED": _saved,
    "ANNOTATIONS_CREATED": _saved,
    "ANNOTATION_UPDATED": _saved,
    "ANNOTATIONS_UPDATED": _saved,
    "ANNOTATION_DELETED": _annotations_gone,
    "ANNOTATIONS_DELETED": _annotations_gone,
    "TASK_CREATED": _unsure,
    "TASKS_CREATED": _unsure,
    "TASK_DELETED": _tasks_gone,
    "TASKS_DELETED": _tasks_gone,
    "PROJECT_UPDATED": _unsure,
    "START_TRAINING": _training,
}


def _objects(body: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]] | None:
    """What stands under a name or its plural, one or many; None where nothing does."""
    value = body.get(name)
    if value is None:
        value = body.get(f"{name}s")
    if value is None:
        return None
    many = value if isinstance(value, list) else [value]
    objects = [{"id": one} if isinstance(one, int) else one for one in many]
    if not all(isinstance(one, Mapping) for one in objects):
        raise BodyError(f"The {name} of the event must be an object or a list of objects.")
    return objects


def _ids(name: str, objects: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_id(name, one) for one in objects))


def _id(name: str, owner: Mapping[str, Any]) -> int:
    found = _optional_id(owner, "id")
    if found is None:
        raise BodyError(f"The {name} of the event has no id.")
    return found


def _project(body: Mapping[str, Any]) -> int | None:
    """The project's id; the event holds the whole project, an older one its id."""
    return _optional_id(body, "project")


def _optional_id(owner: Mapping[str, Any], name: str) -> int | None:
    """An id, or that of an object; None where there is nothing."""
    value = owner.get(name)
    if isinstance(value, Mapping):
        value = value.get("id")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_ID:
        raise BodyError(f"The {name} of the event must be a whole number above 0.")
    return value
