"""What there is in a Label Studio, in pages that stay in order while people work.

Tasks are asked for by rising id, always those after the last one seen. Numbered pages would
move on when a task before them is deleted, and leave one out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import httpx
from pydantic import BaseModel

from backend.label_studio_http import Api, LabelStudioApiError, LabelStudioTooLargeError
from backend.label_studio_models import Project, Webhook
from segzero_ml.errors import LabelStudioError

MOST_BYTES: Final = 256 << 20
"""Largest answer that is read, in bytes of JSON."""

_TASKS: Final = "/api/tasks/"
_PROJECTS: Final = "/api/projects/"
_PROJECTS_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Some tasks after a given one.

    Args:
        tasks: As in the API, by rising id; with all their predictions and annotations, also
            the cancelled ones, if these were asked for.
        total: How many tasks there are after the given one, these included.
    """

    tasks: tuple[Mapping[str, Any], ...]
    total: int


class _Tasks(BaseModel):
    tasks: list[dict[str, Any]]
    total: int


class _Projects(BaseModel):
    results: list[Project]
    next: str | None = None


class _Place(BaseModel):
    id: int
    project: int


class Listing:
    """Lists what a Label Studio holds; see `backend.label_studio.LabelStudio.listing`.

    Its calls raise what those of `LabelStudio` raise.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    def task_page(
        self,
        project_id: int,
        after: int,
        size: int,
        *,
        with_contents: bool = True,
        calls_backend: bool = True,
        most_bytes: int = MOST_BYTES,
    ) -> TaskPage:
        """Tasks with an id above `after`; Label Studio may give fewer than `size`.

        Args:
            project_id: The project.
            after: 0 for the first page, then the id of the last task.
            size: Most tasks of the page.
            with_contents: Whether predictions and annotations are wanted.
            calls_backend: Whether Label Studio may fetch missing predictions first, as it
                does in projects that are set to.
            most_bytes: Largest answer that is read, in bytes of JSON.

        Raises:
            LabelStudioTooLargeError: The answer is larger.
            LabelStudioError: As ever; or the page cannot be what was asked for.
        """
        later = {
            "filter": "filter:tasks:id",
            "operator": "greater",
            "type": "Number",
            "value": after,
        }
        query = {"filters": {"conjunction": "and", "items": [later]}, "ordering": []}
        params: dict[str, Any] = {
            "project": project_id,
            "page": 1,
            "page_size": size,
            "fields": "all" if with_contents else "task_only",
            # Addresses in cloud storage as the tasks have them, as webhooks tell them too.
            "resolve_uri": "false",
            "query": json.dumps(query),
        }
        if not calls_backend:
            params["review"] = "true"
        found = self._api.read(_Tasks, "GET", _TASKS, params=params, most_bytes=most_bytes)
        problem = _problem(found, project_id, after, size, with_contents)
        if problem is not None:
            raise LabelStudioError(
                f"Label Studio's list of tasks is not as expected: {problem}.",
                "This is made for Label Studio 1.23; check the version of yours.",
            )
        return TaskPage(tuple(found.tasks), found.total)

    def tasks_of(
        self, project_id: int, task_ids: Sequence[int], *, most_bytes: int = MOST_BYTES
    ) -> list[Mapping[str, Any]]:
        """Certain tasks with their predictions and annotations, by rising id.

        Those that are gone, or belong to another project, are left out. Where they are too
        heavy for one answer, they are asked for in parts.

        Args:
            project_id: The project.
            task_ids: Ids of the tasks; a few hundred at most.
            most_bytes: Largest answer that is read, in bytes of JSON.

        Raises:
            LabelStudioTooLargeError: The answer about a single task is larger.
        """
        if not task_ids:
            return []
        try:
            return self._tasks_of(project_id, task_ids, most_bytes)
        except LabelStudioTooLargeError:
            half = len(task_ids) // 2
            if not half:
                raise
        parts = [sorted(task_ids)[:half], sorted(task_ids)[half:]]
        return [
            task
            for part in parts
            for task in self.tasks_of(project_id, part, most_bytes=most_bytes)
        ]

    def _tasks_of(
        self, project_id: int, task_ids: Sequence[int], most_bytes: int
    ) -> list[Mapping[str, Any]]:
        among = {
            "filter": "filter:tasks:id",
            "operator": "in_list",
            "type": "Number",
            "value": list(task_ids),
        }
        query = {"filters": {"conjunction": "and", "items": [among]}, "ordering": []}
        params: dict[str, Any] = {
            "project": project_id,
            "page": 1,
            "page_size": len(task_ids),
            "fields": "all",
            "resolve_uri": "false",
            "review": "true",
            "query": json.dumps(query),
        }
        found = self._api.read(_Tasks, "GET", _TASKS, params=params, most_bytes=most_bytes)
        wanted = set(task_ids)
        tasks = [
            task
            for task in found.tasks
            if task.get("id") in wanted and task.get("project") == project_id
        ]
        return sorted(tasks, key=lambda task: int(task["id"]))

    def has_annotation(self, project_id: int, annotation_id: int) -> bool:
        """Whether an annotation is there and belongs to a project.

        False only where Label Studio itself says so.
        """
        path = f"/api/annotations/{annotation_id}/"
        try:
            found = self._api.read(_Place, "GET", path, most_bytes=MOST_BYTES)
        except LabelStudioApiError as error:
            if error.status == httpx.codes.NOT_FOUND and error.detail:
                return False
            raise
        if found.id != annotation_id:
            raise LabelStudioError(f"Label Studio answers {path} with another annotation.")
        return found.project == project_id

    def projects(self) -> list[Project]:
        """All projects that the token's user can see; id, title and settings only."""
        projects: dict[int, Project] = {}
        page = 1
        while True:
            params: dict[str, Any] = {
                "page": page,
                "page_size": _PROJECTS_AT_ONCE,
                "include": "id,title",
            }
            found = self._api.read(_Projects, "GET", _PROJECTS, params=params)
            known = len(projects)
            projects |= {project.id: project for project in found.results}
            if not found.next or len(projects) == known:
                return [projects[number] for number in sorted(projects)]
            page += 1

    def webhooks(self) -> list[Webhook]:
        """The webhooks of all projects, and those of the organisation."""
        return self._api.read(list[Webhook], "GET", "/api/webhooks/")


def _problem(
    found: _Tasks, project_id: int, after: int, size: int, with_contents: bool
) -> str | None:
    """Why an answer cannot be the page that was asked for; None if it can."""
    ids = [number for task in found.tasks if type(number := task.get("id")) is int]
    if len(ids) < len(found.tasks):
        return "a task has no id"
    if any(later <= earlier for earlier, later in pairwise([after, *ids])):
        return "the tasks do not follow each other by id, or were seen before"
    if any(task.get("project") != project_id for task in found.tasks):
        return "a task belongs to another project"
    if len(ids) > size or len(ids) > found.total or (found.total and not ids):
        return f"it says {found.total} tasks and has {len(ids)}"
    kinds = ("annotations", "predictions") if with_contents else ()
    for task in found.tasks:
        for kind in kinds:
            value = task.get(kind)
            if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
                return f"the {kind} of task {task['id']} are missing"
    return None
