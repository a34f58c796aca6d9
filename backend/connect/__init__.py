"""Connects this backend to a project of a running Label Studio, and says what was done.

Label Studio's `project.model_version` is either the version of stored predictions or the
*title* of a backend. The row of this backend is therefore titled with the version that it
reports: then opening a task, sampling by score and `annotation.prediction` all mean the
same predictions, from the first one on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import httpx

from backend.connect.address import BackendAccess, check_backend_url
from backend.connect.refusals import explain
from backend.connect.steps import Session, ensure_backend, ensure_version, ensure_webhook
from backend.label_studio import LabelStudio, LabelStudioApiError
from backend.label_studio_models import MlBackend, Project, Webhook
from backend.labelling import parse_config
from segzero_ml.errors import LabelStudioError

__all__ = ["BackendAccess", "ConnectReport", "check_backend_url", "connect"]


@dataclass(frozen=True, slots=True)
class ConnectReport:
    """What `connect` found and did.

    Args:
        project: Title of the project.
        page: Address of the project in the browser.
        done: What was changed, or with a dry run what would be.
        unchanged: What was as it should be already.
        todo: What the user still has to do.
        model_version: The version that the backend reports; None if not known (dry run).
    """

    project: str
    page: str
    done: tuple[str, ...]
    unchanged: tuple[str, ...]
    todo: tuple[str, ...]
    model_version: str | None


def connect(
    client: LabelStudio,
    project_id: int,
    access: BackendAccess,
    *,
    dry_run: bool = False,
    wait_s: float = 0.0,
) -> ConnectReport:
    """Register the backend, its webhook and the model version; change nothing needlessly.

    Nothing is ever removed, except what this very call made before it failed.

    Args:
        client: The Label Studio to connect to.
        project_id: The project.
        access: How Label Studio reaches the backend.
        dry_run: Only say what would be done.
        wait_s: Longest wait for a backend that still loads its model, in seconds.

    Raises:
        ConfigError: The backend's address cannot work.
        LabellingConfigError: The project's labelling config cannot be served.
        LabelStudioError: Label Studio is down, refuses the token or the project, or cannot
            reach the backend.
    """
    access = replace(access, url=check_backend_url(access.url))
    client.whoami()
    project = _project(client, project_id)
    session = Session(client, project_id, access, dry_run, 0.0 if dry_run else wait_s)
    session.todo.extend(parse_config(project.label_config).warnings)
    webhooks = client.webhooks(project_id)
    rows = client.ml_backends(project_id)
    version = _make(session, webhooks, rows)
    session.todo.extend(_open_ends(access, project, webhooks, rows))
    return ConnectReport(
        project=project.title,
        page=f"{client.url}/projects/{project_id}",
        done=tuple(session.done),
        unchanged=tuple(session.unchanged),
        todo=tuple(session.todo),
        model_version=version,
    )


def _project(client: LabelStudio, project_id: int) -> Project:
    try:
        return client.project(project_id)
    except LabelStudioApiError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        raise LabelStudioError(
            f"There is no project {project_id} that the token's user can see.",
            f"Take the number from the project's address: {client.url}/projects/NUMBER.",
        ) from None


def _make(session: Session, webhooks: Sequence[Webhook], rows: Sequence[MlBackend]) -> str | None:
    """All the steps, or none of them."""
    leftovers: list[str] = []
    try:
        with ExitStack() as undo:
            if not session.dry_run:
                undo.callback(_remove_new, session, webhooks, rows, leftovers)
            ensure_webhook(session, webhooks)
            row = ensure_backend(session, rows)
            version = ensure_version(session, row)
            undo.pop_all()
    except LabelStudioError as error:
        raise explain(error, session.access.url, leftovers) from error
    return version


def _remove_new(
    session: Session,
    webhooks: Sequence[Webhook],
    rows: Sequence[MlBackend],
    leftovers: list[str],
) -> None:
    """Remove what a failed call made; what cannot be removed goes into `leftovers`.

    Label Studio can keep a row although it answered with an error, so they are looked up.
    """
    client, access = session.client, session.access
    old_rows = {row.id for row in rows}
    old_webhooks = {webhook.id for webhook in webhooks}

    def remove_rows() -> None:
        for row in client.ml_backends(session.project_id):
            if row.id not in old_rows and access.is_backend(row.url):
                client.delete_ml_backend(row.id)

    def remove_webhooks() -> None:
        for webhook in client.webhooks(session.project_id):
            if webhook.id not in old_webhooks and access.is_webhook(webhook.url):
                client.delete_webhook(webhook.id)

    steps: dict[str, Callable[[], None]] = {
        f"the ML backend {access.url}": remove_rows,
        f"the webhook {access.webhook_url}": remove_webhooks,
    }
    for what, remove in steps.items():
        try:
            remove()
        except LabelStudioError:
            leftovers.append(what)


def _open_ends(
    access: BackendAccess,
    project: Project,
    webhooks: Sequence[Webhook],
    rows: Sequence[MlBackend],
) -> list[str]:
    """What the user has to see to by hand."""
    found = []
    if rows and not access.is_backend(rows[0].url):
        found.append(
            f"Label Studio asks a project's oldest ML backend only, here {rows[0].url}: remove "
            "it in Settings, Model, if this one is to answer."
        )
    if sum(access.is_webhook(webhook.url) for webhook in webhooks) > 1:
        found.append(
            f"Several webhooks point to {access.webhook_url}: remove all but the first in "
            "Settings, Webhooks."
        )
    if access.webhook_secret is None:
        found.append(
            "The webhook carries no secret. If the backend has a SEGZERO_WEBHOOK_SECRET and a "
            "login, set the same here and run this again, or corrections will be refused."
        )
    if not project.show_collab_predictions:
        found.append(
            "Annotators do not see predictions in this project: switch on Settings, "
            'Annotation, "Use predictions to prelabel tasks".'
        )
    return found
