"""A small typed client of Label Studio's HTTP API: the calls this project makes, no more.

Replies are checked when they are read (`label_studio_models`); errors are translated in
`label_studio_http`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx
from pydantic import SecretStr

from backend.label_studio_http import Api, LabelStudioApiError
from backend.label_studio_listing import Listing
from backend.label_studio_models import (
    Annotation,
    MlBackend,
    Project,
    StoredPrediction,
    Task,
    UploadedFile,
    User,
    Webhook,
)
from segzero_ml.errors import LabelStudioError

__all__ = ["LabelStudio", "LabelStudioApiError"]

TIMEOUT_S: Final = 30.0
RETRIEVE_TIMEOUT_S: Final = 130.0
"""Label Studio itself waits 100 s for a backend's predictions, after health and set-up."""

_PAGE: Final = 100
_UPLOADS_PER_CALL: Final = 25


class LabelStudio:
    """A Label Studio server, spoken to with one token. Use it as a context manager.

    Args:
        url: Address of Label Studio.
        token: Personal access token or legacy token.
        timeout_s: Longest wait for one answer, in seconds.
        transport: How requests travel; None for the network.

    Attributes:
        listing: What there is, in pages.

    Raises:
        ConfigError: The token is empty or malformed.

    Every call raises:
        LabelStudioUnreachableError: Nothing answers at the address, or not in time.
        LabelStudioAuthError: The token is wrong or its user is not permitted.
        LabelStudioApiError: Label Studio refuses the call.
        LabelStudioError: What answers does not speak like Label Studio.
    """

    def __init__(
        self,
        url: str,
        token: SecretStr | str,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._api = Api(self.url, token, timeout_s, transport)
        self.listing = Listing(self._api)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    # People and projects

    def whoami(self) -> User:
        """The user the token belongs to."""
        return self._api.read(User, "GET", "/api/current-user/whoami")

    def create_personal_token(self) -> SecretStr:
        """Make a personal access token for the token's user; there can be one at a time."""
        reply = self._api.read(dict[str, Any], "POST", "/api/token/", json={})
        token = reply.get("token")
        if not isinstance(token, str):
            raise LabelStudioError("Label Studio made no personal access token.")
        return SecretStr(token)

    def project(self, project_id: int) -> Project:
        """One project."""
        return self._api.read(Project, "GET", f"/api/projects/{project_id}/")

    def create_project(self, title: str, label_config: str, **fields: object) -> Project:
        """Make a project; `fields` are further fields of the API."""
        body = {"title": title, "label_config": label_config, **fields}
        return self._api.read(Project, "POST", "/api/projects/", json=body)

    def update_project(self, project_id: int, **fields: object) -> Project:
        """Change some fields of a project."""
        return self._api.read(Project, "PATCH", f"/api/projects/{project_id}/", json=fields)

    # Tasks

    def upload_files(
        self, project_id: int, files: Sequence[tuple[str, bytes, str]]
    ) -> list[UploadedFile]:
        """Store files in a project without making tasks of them.

        Args:
            project_id: The project; its labelling config may show one picture a task only.
            files: Name, content and media type of each.

        Returns:
            One entry per file, in the order given.
        """
        ids: list[int] = []
        for start in range(0, len(files), _UPLOADS_PER_CALL):
            batch = files[start : start + _UPLOADS_PER_CALL]
            reply = self._api.read(
                dict[str, Any],
                "POST",
                f"/api/projects/{project_id}/import",
                params={"commit_to_project": "false"},
                files=[(f"file{number}", file) for number, file in enumerate(batch)],
            )
            ids.extend(reply.get("file_upload_ids", []))
        found = self._api.read(
            list[UploadedFile],
            "GET",
            f"/api/projects/{project_id}/file-uploads",
            params={"ids": str(ids)},
        )
        by_id = {upload.id: upload for upload in found}
        if len(ids) != len(files) or not set(ids) <= by_id.keys():
            raise LabelStudioError(
                f"Label Studio stored {len(by_id)} of {len(files)} uploaded files."
            )
        return [by_id[upload_id] for upload_id in ids]

    def import_tasks(self, project_id: int, data: Sequence[Mapping[str, object]]) -> list[int]:
        """Make tasks; returns their ids in the order given."""
        reply = self._api.read(
            dict[str, Any],
            "POST",
            f"/api/projects/{project_id}/import",
            params={"return_task_ids": "true"},
            json=[{"data": dict(item)} for item in data],
        )
        ids = reply.get("task_ids")
        if not isinstance(ids, list) or len(ids) != len(data):
            raise LabelStudioError(f"Label Studio did not make the {len(data)} tasks asked for.")
        return [int(task_id) for task_id in ids]

    def tasks(self, project_id: int) -> list[Task]:
        """All tasks of a project with their predictions and annotations, by id."""
        tasks: dict[int, Task] = {}
        page, total = 1, None
        while total is None or len(tasks) < total:
            reply = self._api.read(
                dict[str, Any],
                "GET",
                "/api/tasks/",
                params={
                    "project": project_id,
                    "page": page,
                    "page_size": _PAGE,
                    "fields": "all",
                },
            )
            batch = self._api.check(list[Task], reply.get("tasks"), "/api/tasks/")
            known = len(tasks)
            tasks |= {task.id: task for task in batch}
            if len(tasks) == known:
                break
            total, page = int(reply.get("total", 0)), page + 1
        return [tasks[task_id] for task_id in sorted(tasks)]

    def annotate(
        self,
        task_id: int,
        result: Sequence[Mapping[str, object]],
        parent_prediction: int | None = None,
        lead_time: float | None = None,
    ) -> Annotation:
        """Submit an annotation as the token's user, who took so many seconds."""
        body: dict[str, object] = {"result": list(result), "parent_prediction": parent_prediction}
        if lead_time is not None:
            body["lead_time"] = lead_time
        return self._api.read(Annotation, "POST", f"/api/tasks/{task_id}/annotations/", json=body)

    def add_prediction(
        self,
        task_id: int,
        result: Sequence[Mapping[str, object]],
        model_version: str,
        score: float | None = None,
    ) -> StoredPrediction:
        """Store a prediction without being asked for one."""
        body = {
            "task": task_id,
            "result": list(result),
            "model_version": model_version,
            "score": score,
        }
        return self._api.read(StoredPrediction, "POST", "/api/predictions/", json=body)

    def add_predictions(self, project_id: int, predictions: Sequence[Mapping[str, object]]) -> None:
        """Store predictions of several tasks, all of them or none.

        Args:
            project_id: The project of the tasks.
            predictions: Each with `task`, `result`, `model_version` and `score`.
        """
        path = f"/api/projects/{project_id}/import/predictions"
        reply = self._api.read(dict[str, Any], "POST", path, json=list(predictions))
        if reply.get("created") != len(predictions):
            raise LabelStudioError(
                f"Label Studio stored {reply.get('created')} of {len(predictions)} predictions."
            )

    def retrieve_predictions(self, project_id: int, task_ids: Sequence[int] | None = None) -> None:
        """Do what "Retrieve predictions" in the Data Manager does, and wait for it.

        Label Studio sends all the tasks to the project's first backend in one call of at
        most 100 s, skipping those that hold a prediction of the backend's version. It
        answers alike whether or not that succeeded: read the tasks to know.

        Args:
            project_id: The project.
            task_ids: Which tasks; None for all.
        """
        selected: dict[str, object] = {"all": True, "excluded": []}
        if task_ids is not None:
            selected = {"all": False, "included": list(task_ids)}
        self._api.read(
            dict[str, Any],
            "POST",
            "/api/dm/actions/",
            params={"id": "retrieve_tasks_predictions", "project": project_id},
            json={"selectedItems": selected},
            timeout=RETRIEVE_TIMEOUT_S,
        )

    # Backends and webhooks

    def ml_backends(self, project_id: int) -> list[MlBackend]:
        """A project's backends, oldest first; Label Studio calls each to know its state."""
        found = self._api.read(list[MlBackend], "GET", "/api/ml/", params={"project": project_id})
        return sorted(found, key=lambda backend: backend.id)

    def add_ml_backend(self, fields: Mapping[str, object]) -> MlBackend:
        """Register a backend; Label Studio calls its health and set-up first."""
        return self._api.read(MlBackend, "POST", "/api/ml/", json=dict(fields))

    def update_ml_backend(self, backend_id: int, fields: Mapping[str, object]) -> MlBackend:
        """Change a backend. Give every field: Label Studio checks them as for a new one."""
        return self._api.read(MlBackend, "PATCH", f"/api/ml/{backend_id}", json=dict(fields))

    def delete_ml_backend(self, backend_id: int) -> None:
        """Remove a backend; its webhook stays."""
        self._api.request("DELETE", f"/api/ml/{backend_id}")

    def webhooks(self, project_id: int) -> list[Webhook]:
        """A project's webhooks, oldest first."""
        found = self._api.read(
            list[Webhook], "GET", "/api/webhooks/", params={"project": project_id}
        )
        return sorted(found, key=lambda webhook: webhook.id)

    def add_webhook(self, fields: Mapping[str, object]) -> Webhook:
        """Make a webhook."""
        return self._api.read(Webhook, "POST", "/api/webhooks/", json=dict(fields))

    def update_webhook(self, webhook_id: int, fields: Mapping[str, object]) -> Webhook:
        """Change a webhook. Give `actions` as well: Label Studio clears them otherwise."""
        return self._api.read(Webhook, "PATCH", f"/api/webhooks/{webhook_id}/", json=dict(fields))

    def delete_webhook(self, webhook_id: int) -> None:
        """Remove a webhook."""
        self._api.request("DELETE", f"/api/webhooks/{webhook_id}/")
