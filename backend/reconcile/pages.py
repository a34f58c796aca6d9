"""From a page of Label Studio's list to the store: only what the store does not have yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backend.annotations import (
    Identity,
    ImageFacts,
    NoCorrection,
    find_prediction,
    identify,
    to_correction,
)
from backend.intake.write import write_annotation
from backend.labelling import Labelling
from backend.reconcile.result import Tally
from backend.reconcile.seen import Seen
from backend.reconcile.walk import Part
from backend.settings import Settings
from segzero_ml.checks import MAX_ID
from segzero_ml.errors import InputError
from training_hooks.store import CorrectionStore
from training_hooks.store_values import Known, Outcome, ProjectKey

ImageOf = Callable[[Mapping[str, Any], Labelling], ImageFacts | None]
"""Gives what is known of a task's image, or None where it cannot be had."""

_Found = tuple[Mapping[str, Any], Mapping[str, Any], Identity]
"""A task, one of its annotations, and which that is."""


def no_image(task: Mapping[str, Any], labelling: Labelling) -> None:
    """An `ImageOf` that knows nothing."""


@dataclass(slots=True)
class PageWriter:
    """Brings the store up to date with what pages show.

    Args:
        store: The store.
        key: The project.
        mark: The store's `mark` from before the list was asked for.
        labelling: The project's labelling config.
        settings: The name of this Label Studio, and the fields that hold requests.
        seen: Is told all annotations, also those that cannot be read.
        tally: Counts what is found and done.
        image_of: Looks up the image of a task.
        dry_run: Write nothing; count what would be written.
    """

    store: CorrectionStore
    key: ProjectKey
    mark: int
    labelling: Labelling
    settings: Settings
    seen: Seen
    tally: Tally
    image_of: ImageOf = no_image
    dry_run: bool = False

    def write(self, part: Part) -> None:
        """Bring the store up to date with some tasks.

        Raises:
            StoreError: Redis does not answer, refuses or is full.
        """
        self.tally.tasks += len(part.page.tasks)
        for number, reason in part.unreadable.items():
            self.tally.fail(number, None, reason)
        found = [one for task in part.page.tasks for one in self._identified(task)]
        known = self.store.known(self.key, [one.key.annotation for _, _, one in found])
        images: dict[int, ImageFacts | None] = {}
        for task, annotation, identity in found:
            old = known.get(identity.key.annotation)
            if old is not None and old.revision == identity.revision:
                self.tally.unchanged += 1
                continue
            try:
                self._write(task, annotation, identity, old, images)
            except InputError as error:
                self.tally.fail(identity.task, identity.key.annotation, error.message)

    def _identified(self, task: Mapping[str, Any]) -> list[_Found]:
        found: list[_Found] = []
        annotations = task.get("annotations", ())
        numbers = [_number(one) for one in annotations]
        self.seen.add([number for number in numbers if number is not None])
        self.tally.annotations += len(annotations)
        for annotation, number in zip(annotations, numbers, strict=True):
            try:
                identity = identify(annotation, task, self.key.label_studio)
                if identity.key.project != self.key.project:
                    raise InputError(f"It belongs to project {identity.key.project}.")
            except InputError as error:
                self.tally.fail(task["id"], number, error.message)
            else:
                found.append((task, annotation, identity))
        return found

    def _write(
        self,
        task: Mapping[str, Any],
        annotation: Mapping[str, Any],
        identity: Identity,
        old: Known | None,
        images: dict[int, ImageFacts | None],
    ) -> None:
        prediction = find_prediction(annotation, task["predictions"])
        if self.dry_run:
            made = to_correction(
                annotation,
                task,
                prediction,
                self.labelling,
                self.settings.label_studio_name,
                request_fields=self.settings.request_fields,
            )
            self._count(Outcome.UPDATED if old else Outcome.CREATED, isinstance(made, NoCorrection))
            return
        if annotation.get("was_cancelled"):
            image = None
        elif identity.task in images:
            image = images[identity.task]
        else:
            image = images[identity.task] = self.image_of(task, self.labelling)
        outcome = write_annotation(
            self.store,
            annotation,
            task,
            prediction,
            self.labelling,
            self.settings,
            image,
            listed_since=self.mark,
        )
        withdrawn = False
        if outcome.changed:
            now = self.store.known(self.key, [identity.key.annotation])
            state = now.get(identity.key.annotation)
            withdrawn = state is not None and not state.has_truth
        self._count(outcome, withdrawn)

    def _count(self, outcome: Outcome, withdrawn: bool) -> None:
        if not outcome.changed:
            self.tally.unchanged += 1
        elif withdrawn:
            self.tally.withdrawn += 1
        elif outcome is Outcome.CREATED:
            self.tally.added += 1
        else:
            self.tally.updated += 1


def _number(annotation: Mapping[str, Any]) -> int | None:
    value = annotation.get("id")
    return value if type(value) is int and 1 <= value <= MAX_ID else None
