"""The steps of connecting: each looks first, changes only what differs, and says which."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backend.access import SECRET_HEADER
from backend.connect.address import BackendAccess
from backend.label_studio import LabelStudio
from backend.label_studio_models import MlBackend, Webhook
from segzero_ml.errors import LabelStudioError

LOADING: Final = "(loading)"
"""How a version ends that the backend reports before its model is loaded."""

_DESCRIPTION: Final = "SegZero: reasons about the request, cuts the mask, learns from corrections."
_FIRST_TITLE: Final = "SegZero"
_COMPARED: Final = ("headers", "is_active", "send_payload", "send_for_all_actions")
_POLL_S: Final = 2.0


@dataclass(slots=True)
class Session:
    """One run of `connect`: what it works on, and what it has to tell.

    Args:
        client: The Label Studio.
        project_id: The project.
        access: How Label Studio reaches the backend.
        dry_run: Note changes without making them.
        wait_s: Longest wait for the backend to load its model, in seconds.
        sleep: Waits between two looks.
    """

    client: LabelStudio
    project_id: int
    access: BackendAccess
    dry_run: bool = False
    wait_s: float = 0.0
    sleep: Callable[[float], None] = time.sleep
    done: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    def change(self, what: str, outcome: str) -> bool:
        """Note a change; whether it is to be made."""
        self.done.append(f"{what}: {'to be ' if self.dry_run else ''}{outcome}")
        return not self.dry_run


def ensure_webhook(session: Session, webhooks: Sequence[Webhook]) -> None:
    """Have the webhook with its secret.

    Comes before the backend: Label Studio makes a webhook without the secret for a backend
    that has none, and keeps the backend when it refuses that webhook.
    """
    access = session.access
    what = f"Webhook {access.webhook_url}"
    headers = {}
    if access.webhook_secret is not None:
        headers[SECRET_HEADER] = access.webhook_secret.get_secret_value()
        what += " with its secret"
    wanted: dict[str, Any] = {
        "project": session.project_id,
        "url": access.webhook_url,
        "headers": headers,
        "is_active": True,
        "send_payload": True,
        "send_for_all_actions": True,
    }
    ours = next((hook for hook in webhooks if access.is_webhook(hook.url)), None)
    if ours is None:
        if session.change(what, "made"):
            session.client.add_webhook(wanted)
        return
    wanted["headers"] = {**ours.headers, **headers}
    if all(getattr(ours, name) == wanted[name] for name in _COMPARED):
        session.unchanged.append(what)
    elif session.change(what, "corrected"):
        session.client.update_webhook(ours.id, {**wanted, "actions": list(ours.actions)})


def ensure_backend(session: Session, rows: Sequence[MlBackend]) -> MlBackend | None:
    """The backend's row as Label Studio has it now; None if a dry run did not make it."""
    access = session.access
    what = f"ML backend {access.url}" + ("" if access.password is None else " with its login")
    row = next((row for row in rows if access.is_backend(row.url)), None)
    if row is None:
        if not session.change(what, "registered"):
            return None
        return session.client.add_ml_backend(_fields(session, _FIRST_TITLE))
    wanted = _fields(session, row.title or _FIRST_TITLE)
    login = (row.auth_method, row.basic_auth_user or None)
    wanted_login = (wanted["auth_method"], wanted.get("basic_auth_user"))
    if row.is_connected and row.is_interactive and login == wanted_login:
        session.unchanged.append(what)
    elif session.change(what, "corrected"):
        row = session.client.update_ml_backend(row.id, wanted)
    return row


def ensure_version(session: Session, row: MlBackend | None) -> str | None:
    """Title the row and set the project to the version that the backend reports.

    Returns:
        The version; None if a dry run cannot know it.

    Raises:
        LabelStudioError: The backend reports none.
    """
    what = "Model version of the project"
    if row is None:
        session.change(what, "set to what the backend reports")
        return None
    row = _loaded(session, row)
    version = row.model_version
    if not version:
        raise LabelStudioError(
            f"The backend at {session.access.url} reports no model version.",
            "See whether segzero serve is what runs there.",
        )
    if version.endswith(LOADING):
        session.todo.append(
            f"The backend is still loading its model ({version}): run this again once it has, "
            "so that the project gets its version."
        )
        return version
    client, project_id = session.client, session.project_id
    if row.title == version and client.project(project_id).model_version == version:
        session.unchanged.append(f"{what}, {version}")
    elif session.change(f"{what}, {version}", "set"):
        if row.title != version:
            client.update_ml_backend(row.id, _fields(session, version))
        # With the title, Label Studio renames the project's version only if it was the title.
        if client.project(project_id).model_version != version:
            client.update_project(project_id, model_version=version)
    return version


def _loaded(session: Session, row: MlBackend) -> MlBackend:
    """The row once its backend has loaded the model, or as it is when the wait is over."""
    waited = 0.0
    while (row.model_version or "").endswith(LOADING) and waited < session.wait_s:
        session.sleep(_POLL_S)
        waited += _POLL_S
        rows = session.client.ml_backends(session.project_id)
        row = next((new for new in rows if new.id == row.id), row)
    return row


def _fields(session: Session, title: str) -> dict[str, Any]:
    access = session.access
    fields: dict[str, Any] = {
        "project": session.project_id,
        "url": access.url,
        "title": title,
        "description": _DESCRIPTION,
        "is_interactive": True,
        "auth_method": "NONE",
    }
    if access.password is not None:
        fields["auth_method"] = "BASIC_AUTH"
        fields["basic_auth_user"] = access.user
        fields["basic_auth_pass"] = access.password.get_secret_value()
    return fields
