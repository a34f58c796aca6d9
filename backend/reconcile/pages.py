"""From a page of Label Studio's list to the store: only what the store does not have yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backend.annotations import (
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

    def write(self, part: Part) -> Iterator[int]:
        """Bring the store up to date with some tasks, one at a time; gives the id of each.

        Raises:
            StoreError: Redis does not answer, refuses or is full.
        """
        tasks = part.page.tasks
        numbers = [_number(one) for task in tasks for one in task.get("annotations", ())]
        usable = [number for number in numbers if number is not None]
        self.seen.add(usable)
        known = self.store.known(self.key, usable)
        for task in tasks:
            number = int(task["id"])
            self.tally.tasks += 1
            if number in part.unreadable:
                self.tally.fail(number, None, part.unreadable[number])
            self._write_task(task, known)
            yield number

    def _write_task(self, task: Mapping[str, Any], known: Mapping[int, Known]) -> None:
        image = _Once(lambda: self.image_of(task, self.labelling))
        for annotation in task.get("annotations", ()):
            self.tally.annotations += 1
            number = _number(annotation)
            try:
                identity = identify(annotation, task, self.key.label_studio)
                if identity.key.project != self.key.project:
                    raise InputError(f"It belongs to project {identity.key.project}.")
                old = known.get(identity.key.annotation)
                if old is not None and old.revision == identity.revision:
                    self.tally.unchanged += 1
                elif self.dry_run:
                    self._foretell(task, annotation, old)
                else:
                    self._write(task, annotation, image)
            except InputError as error:
                self.tally.fail(int(task["id"]), number, error.message)

    def _foretell(
        self, task: Mapping[str, Any], annotation: Mapping[str, Any], old: Known | None
    ) -> None:
        made = to_correction(
            annotation,
            task,
            find_prediction(annotation, task["predictions"]),
            self.labelling,
            self.settings.label_studio_name,
            request_fields=self.settings.request_fields,
        )
        self._count(Outcome.UPDATED if old else Outcome.CREATED, isinstance(made, NoCorrection))

    def _write(self, task: Mapping[str, Any], annotation: Mapping[str, Any], image: _Once) -> None:
        outcome = write_annotation(
            self.store,
            annotation,
            task,
            find_prediction(annotation, task["predictions"]),
            self.labelling,
            self.settings,
            None if annotation.get("was_cancelled") else image(),
            listed_since=self.mark,
        )
        withdrawn = False
        if outcome.changed:
            number = int(annotation["id"])
            state = self.store.known(self.key, [number]).get(number)
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


class _Once:
    """What is known of a task's image, looked up when first asked for."""

    def __init__(self, look_up: Callable[[], ImageFacts | None]) -> None:
        self._look_up = look_up
        self._has_looked = False
        self._found: ImageFacts | None = None

    def __call__(self) -> ImageFacts | None:
        if not self._has_looked:
            self._found = self._look_up()
            self._has_looked = True
        return self._found


def _number(annotation: Mapping[str, Any]) -> int | None:
    value = annotation.get("id")
    return value if type(value) is int and 1 <= value <= MAX_ID else None
