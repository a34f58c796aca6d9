"""One annotation into the store: the only way in, for webhooks and for reconciling alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.annotations import ImageFacts, NoCorrection, to_correction
from backend.labelling import Labelling
from backend.settings import Settings
from training_hooks.store import CorrectionStore
from training_hooks.store_values import Outcome


def write_annotation(
    store: CorrectionStore,
    annotation: Mapping[str, Any],
    task: Mapping[str, Any],
    prediction: Mapping[str, Any] | None,
    labelling: Labelling,
    settings: Settings,
    image: ImageFacts | None,
    listed_since: int | None = None,
) -> Outcome:
    """Store what an annotation teaches; one that teaches nothing is withdrawn.

    Safe to repeat, in any order: the newest revision wins, and what was deleted stays deleted.

    Args:
        store: Where to.
        annotation: As in a webhook or from the API.
        task: Its task, with `id`, `data` and `project`.
        prediction: The one it came from, see `backend.annotations.find_prediction`, or None.
        labelling: The project's labelling config.
        settings: The name of this Label Studio, and the fields that hold requests.
        image: What is known of the image's file, or None.
        listed_since: For an annotation read from a list, see `CorrectionStore.upsert`.

    Raises:
        InputError: The annotation or the task cannot be read, or a mask in it; the store is
            as before.
        StoreError: Redis does not answer, refuses or is full.
    """
    made = to_correction(
        annotation,
        task,
        prediction,
        labelling,
        settings.label_studio_name,
        request_fields=settings.request_fields,
        image=image,
    )
    if isinstance(made, NoCorrection):
        known = made.identity
        return store.withdraw(known.key, known.revision, known.task, listed_since)
    return store.upsert(made, listed_since)
