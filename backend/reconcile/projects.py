"""Which projects there are to reconcile, and the Label Studio they are in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from backend.access import SECRET_HEADER
from backend.label_studio import TIMEOUT_S, LabelStudio
from backend.label_studio_models import Webhook
from backend.settings import Settings
from segzero_ml.errors import ConfigError
from training_hooks.loop_reader import note_gone, note_there
from training_hooks.store import CorrectionStore
from training_hooks.store_reader import CorrectionReader
from training_hooks.store_values import ProjectKey


@dataclass(frozen=True, slots=True)
class Projects:
    """Ids of projects, rising.

    Args:
        wanted: Those to reconcile.
        gone: Those the store knows and Label Studio does not have, or hides.
    """

    wanted: tuple[int, ...]
    gone: tuple[int, ...]


def open_label_studio(settings: Settings, timeout_s: float = TIMEOUT_S) -> LabelStudio:
    """The Label Studio that the settings name.

    Raises:
        ConfigError: They name none, or the token is malformed.
    """
    url, token = settings.label_studio_url, settings.label_studio_token
    if url is None or token is None:
        raise ConfigError(
            "There is no Label Studio to compare with.",
            "Set SEGZERO_LABEL_STUDIO_URL and SEGZERO_LABEL_STUDIO_TOKEN, also for the workers.",
        )
    return LabelStudio(url, token, timeout_s=timeout_s)


def find_projects(client: LabelStudio, store: CorrectionReader, settings: Settings) -> Projects:
    """The projects that the store knows, and those with a webhook of this backend.

    Raises:
        LabelStudioError: Label Studio is away or refuses.
        StoreError: Redis does not answer or refuses.
    """
    ours = settings.label_studio_name
    known = {one.project for one in store.projects() if one.label_studio == ours}
    there = {project.id for project in client.listing.projects()}
    wanted = set(known)
    for webhook in client.listing.webhooks():
        if is_ours(webhook, settings.port):
            wanted |= there if webhook.project is None else {webhook.project}
    return Projects(tuple(sorted(wanted & there)), tuple(sorted(known - there)))


def is_ours(webhook: Webhook, port: int) -> bool:
    """Whether a webhook seems to lead to a backend of this project.

    How Label Studio reaches this machine is not known here: what counts is the path, with the
    header of `segzero connect` or with the port.

    Args:
        webhook: Any webhook of Label Studio.
        port: Port of the backend.
    """
    try:
        url = urlsplit(webhook.url)
        same_port = url.port == port
    except ValueError:
        return False
    has_header = SECRET_HEADER.lower() in {name.lower() for name in webhook.headers}
    return url.path.rstrip("/").endswith("/webhook") and (has_header or same_port)


def remember_gone(store: CorrectionStore, settings: Settings, found: Projects) -> None:
    """Note which projects are gone, so that nothing is trained for them, and which are there.

    Args:
        store: The store.
        settings: The name of this Label Studio.
        found: From `find_projects`.

    Raises:
        StoreError: Redis does not answer or has no room.
    """
    ours, now = settings.label_studio_name, datetime.now(UTC)
    for project in found.gone:
        note_gone(store, ProjectKey(ours, project), now)
    for project in found.wanted:
        note_there(store, ProjectKey(ours, project))
