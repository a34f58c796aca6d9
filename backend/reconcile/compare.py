"""Makes the store equal to what Label Studio holds of a project, in one call."""

from __future__ import annotations

from collections.abc import Callable

from backend.label_studio import LabelStudio
from backend.reconcile.pages import ImageOf, no_image
from backend.reconcile.patience import Patience
from backend.reconcile.result import Reconciled
from backend.reconcile.run import Run, Standing
from backend.reconcile.seen import SeenHere
from backend.settings import Settings
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

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
    standing = Standing.begin(store, ProjectKey(settings.label_studio_name, project_id))
    run = Run(
        client,
        store,
        settings,
        standing,
        SeenHere(),
        image_of,
        patience or Patience(),
        dry_run,
    )
    for step in run.steps():
        progress(*step)
    return run.result()
