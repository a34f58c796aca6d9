"""Makes the store equal to what Label Studio holds of a project.

Order against webhooks that arrive meanwhile: a number of the store's is taken before the first
page is asked for. What the store learns after it is newer than the list, and stays; what it
knew before yields to the list. All of it may be repeated, broken off, or done by two at once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import httpx

from backend.label_studio import LabelStudio, LabelStudioApiError
from backend.label_studio_models import Project
from backend.labelling import parse_config
from backend.reconcile.pages import ImageOf, PageWriter, no_image
from backend.reconcile.patience import Patience
from backend.reconcile.result import Reconciled
from backend.reconcile.walk import TaskWalk
from backend.settings import Settings
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

WATERMARK: Final = "reconcile"
"""Name of the store's watermark that holds when the last complete reconcile began."""

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much, and what is being done."""


def quiet(done: int, total: int, note: str) -> None:
    """A `Progress` that tells nobody."""


def reconcile(
    client: LabelStudio,
    store: CorrectionStore,
    project_id: int,
    settings: Settings,
    *,
    image_of: ImageOf = no_image,
    progress: Progress = quiet,
    dry_run: bool = False,
    patience: Patience | None = None,
) -> Reconciled:
    """Make the store hold exactly what Label Studio does of a project.

    Reads all tasks page by page, so that memory stays bounded; builds only what the store does
    not have in this revision. What is missing from the list is removed if the list was
    complete and Label Studio then says of the annotation itself that it is gone.

    Args:
        client: The Label Studio.
        store: The store.
        project_id: The project.
        settings: The name of this Label Studio, and the fields that hold requests.
        image_of: Looks up the images of what is new.
        progress: Is told how far it is.
        dry_run: Write nothing; say what would be written.
        patience: How often each call is tried.

    Returns:
        What was found and done; what could not be read is in `failures`.

    Raises:
        LabellingConfigError: The project's labelling config cannot be read.
        LabelStudioError: Label Studio fails for good, or there is no such project. What was
            done until then is right.
        StoreError: Redis does not answer, refuses or is full.
    """
    patience = patience or Patience()
    started_at = datetime.now(UTC)
    key = ProjectKey(settings.label_studio_name, project_id)
    mark = store.mark(key)
    project = patience.call(partial(_project, client, project_id))
    labelling = parse_config(project.label_config)
    writer = PageWriter(store, key, mark, labelling, settings, image_of, dry_run)
    # To list is not to predict: some projects let Label Studio fetch predictions at every page.
    calls_backend = not project.evaluate_predictions_automatically
    walk = TaskWalk(client.listing, project_id, patience, calls_backend=calls_backend)
    for page in walk.pages():
        writer.write(page)
        progress(writer.tally.tasks, walk.total, "Reading tasks")
    for task, reason in walk.unreadable.items():
        writer.tally.fail(task, None, reason)
    if walk.is_complete:
        _remove_absent(client, writer, patience, progress)
        if not dry_run:
            store.set_watermark(key, WATERMARK, started_at)
    return writer.tally.result(project_id, is_complete=walk.is_complete, dry_run=dry_run)


def _remove_absent(
    client: LabelStudio, writer: PageWriter, patience: Patience, progress: Progress
) -> None:
    """Remove what was not in the list and is gone when asked for by itself."""
    store, key, tally = writer.store, writer.key, writer.tally
    missing = [one for one in store.annotation_ids(key, writer.mark) if one not in writer.seen]
    for number, annotation in enumerate(missing, start=1):
        if patience.call(partial(client.listing.has_annotation, key.project, annotation)):
            tally.annotations += 1
            tally.fail(None, annotation, "It is there, although the list of tasks lacks it.")
        elif writer.dry_run or store.delete(key.annotation(annotation), known_until=writer.mark):
            tally.removed += 1
        progress(number, len(missing), "Looking for what is gone")


def _project(client: LabelStudio, project_id: int) -> Project:
    try:
        return client.project(project_id)
    except LabelStudioApiError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        raise LabelStudioApiError(
            f"There is no project {project_id} that the token's user can see.",
            f"Take the number from the project's address: {client.url}/projects/NUMBER. "
            "The corrections of a project that was deleted stay in the store.",
            status=error.status,
            detail=error.detail,
        ) from None
