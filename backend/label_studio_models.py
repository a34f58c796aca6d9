"""What Label Studio's API answers with: only the fields this project reads, checked."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class User(_Reply):
    """The owner of the token."""

    id: int
    email: str


class Project(_Reply):
    """A project; `model_version` is a version of predictions or the title of a backend."""

    id: int
    title: str = ""
    label_config: str = ""
    model_version: str | None = ""
    show_collab_predictions: bool = True
    task_number: int | None = None
    evaluate_predictions_automatically: bool = False


class MlBackend(_Reply):
    """A row of a project's ML backends; `model_version` is what the backend reported last."""

    id: int
    url: str
    title: str | None = None
    is_interactive: bool = False
    auth_method: str = "NONE"
    basic_auth_user: str | None = None
    model_version: str | None = None
    state: str = ""
    error_message: str | None = None

    @property
    def is_connected(self) -> bool:
        """Whether Label Studio's last health and set-up call succeeded."""
        return self.state == "CO"


class Webhook(_Reply):
    """A webhook; without `send_for_all_actions`, only `actions` are sent."""

    id: int
    url: str
    project: int | None = None
    headers: dict[str, str] = {}
    is_active: bool = True
    send_payload: bool = True
    send_for_all_actions: bool = True
    actions: tuple[str, ...] = ()


class UploadedFile(_Reply):
    """A file in Label Studio's own storage."""

    id: int
    file: str

    @property
    def address(self) -> str:
        """What a task's data holds to show the file."""
        return f"/data/{self.file}"


class StoredPrediction(_Reply):
    """A prediction as Label Studio keeps it."""

    id: int
    result: list[dict[str, Any]]
    score: float | None = None
    model_version: str | None = None


class Annotation(_Reply):
    """An annotation as Label Studio keeps it."""

    id: int
    result: list[dict[str, Any]]
    was_cancelled: bool = False
    parent_prediction: int | None = None


class Task(_Reply):
    """A task with its predictions and annotations."""

    id: int
    data: dict[str, Any]
    predictions: list[StoredPrediction] = []
    annotations: list[Annotation] = []
