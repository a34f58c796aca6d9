"""One run of reconciling, in steps between which it can be put aside.

Order against webhooks that arrive meanwhile: a number of the store's is taken before the first
page is asked for. What the store learns after it is newer than the list, and stays; what it
knew before yields to the list. All of it may be repeated, broken off, or done by two at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, Self

import httpx

from backend.label_studio import LabelStudio, LabelStudioApiError
from backend.label_studio_models import Project
from backend.labelling import Labelling, parse_config
from backend.reconcile.pages import ImageOf, PageWriter, no_image
from backend.reconcile.patience import Patience
from backend.reconcile.result import Reconciled, Tally
from backend.reconcile.seen import Seen
from backend.reconcile.walk import TaskWalk
from backend.settings import Settings
from segzero_ml.checks import read_time
from segzero_ml.errors import InputError
from training_hooks.loop_reader import note_there
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

WATERMARK: Final = "reconcile"
"""Name of the store's watermark that holds when the last complete reconcile began."""

_IDS_AT_ONCE: Final = 1000


@dataclass(slots=True)
class Standing:
    """How far a run is; as JSON it travels from one job to the next.

    Args:
        run: A name of the run's own.
        project: Id of the project.
        mark: The store's `mark` from before the list was asked for.
        started_at: When the run began.
        after: Id of the last task that was dealt with.
        is_listed: Whether all tasks were dealt with.
        is_complete: Whether the list had everything, as far as it was read.
        slices: How many jobs have worked on it.
        tally: What was found and done.
    """

    run: str
    project: int
    mark: int
    started_at: datetime
    after: int = 0
    is_listed: bool = False
    is_complete: bool = True
    slices: int = 0
    tally: Tally = field(default_factory=Tally)

    @classmethod
    def begin(cls, store: CorrectionStore, key: ProjectKey) -> Self:
        """The start of a run."""
        return cls(uuid.uuid4().hex, key.project, store.mark(key), datetime.now(UTC))

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "run": self.run,
            "project": self.project,
            "mark": self.mark,
            "started_at": self.started_at.isoformat(),
            "after": self.after,
            "is_listed": self.is_listed,
            "is_complete": self.is_complete,
            "slices": self.slices,
            "tally": self.tally.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InputError: It is something else.
        """
        try:
            fields = dict(value)
            fields["started_at"] = read_time("started_at", fields["started_at"])
            fields["tally"] = Tally.from_json(fields["tally"])
            return cls(**fields)
        except (TypeError, ValueError, KeyError, InputError) as error:
            raise InputError(f"The state of a reconcile cannot be read: {error}.") from error


class Step(NamedTuple):
    """What a run says after each step: how much is done, of how much, and what it is doing."""

    done: int
    total: int
    note: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run from where it stands to its end.

    Args:
        client: The Label Studio.
        store: The store.
        settings: The name of this Label Studio, and the fields that hold requests.
        standing: Where it stands; changed by every step.
        seen: The annotations that the list had.
        image_of: Looks up the images of what is new.
        patience: How often each call is tried.
        dry_run: Write nothing; count what would be written.
    """

    client: LabelStudio
    store: CorrectionStore
    settings: Settings
    standing: Standing
    seen: Seen
    image_of: ImageOf = no_image
    patience: Patience = field(default_factory=Patience)
    dry_run: bool = False

    def steps(self) -> Iterator[Step]:
        """Go on to the end, a task or one look at an annotation a step.

        Raises:
            LabellingConfigError: The project's labelling config cannot be read.
            LabelStudioError: Label Studio fails for good, or there is no such project.
            StoreError: Redis does not answer, refuses or is full.
        """
        now = self.standing
        if not now.is_listed:
            project = self.patience.call(partial(_project, self.client, now.project))
            if not self.dry_run:
                note_there(self.store, self._key)
            labelling = parse_config(project.label_config)
            # To list is not to predict: some projects have Label Studio do so at every page.
            yield from self._list(labelling, not project.evaluate_predictions_automatically)
        if now.is_complete:
            yield from self._remove_absent()
            if not self.dry_run:
                self.store.set_watermark(self._key, WATERMARK, now.started_at)

    def result(self) -> Reconciled:
        """What was found and done."""
        now = self.standing
        return now.tally.result(now.project, is_complete=now.is_complete, dry_run=self.dry_run)

    @property
    def _key(self) -> ProjectKey:
        return ProjectKey(self.settings.label_studio_name, self.standing.project)

    def _list(self, labelling: Labelling, calls_backend: bool) -> Iterator[Step]:
        now = self.standing
        writer = PageWriter(
            self.store,
            self._key,
            now.mark,
            labelling,
            self.settings,
            self.seen,
            now.tally,
            self.image_of,
            self.dry_run,
        )
        walk = TaskWalk(
            self.client.listing,
            now.project,
            self.patience,
            calls_backend=calls_backend,
            start=now.after,
            given=now.tally.tasks,
        )
        for part in walk.parts():
            now.is_complete = now.is_complete and walk.is_complete
            is_last = part.page.total == len(part.page.tasks)
            for number in writer.write(part):
                now.after = number
                # Known before the step ends: the run may be put aside there.
                now.is_listed = is_last and number == part.end
                yield Step(now.tally.tasks, walk.total, "Reading tasks")
        now.is_listed = True

    def _remove_absent(self) -> Iterator[Step]:
        """Remove what was not in the list and is gone when asked for by itself."""
        now, key = self.standing, self._key
        has = self.client.listing.has_annotation
        missing = self._missing()
        for number, annotation in enumerate(missing, start=1):
            if self.patience.call(partial(has, now.project, annotation)):
                reason = "It is there, although the list of tasks lacks it."
                now.tally.fail(None, annotation, reason)
                self.seen.add([annotation])
            elif self.dry_run or self.store.delete(key.annotation(annotation), now.mark):
                now.tally.removed += 1
            yield Step(number, len(missing), "Looking for what is gone")

    def _missing(self) -> list[int]:
        ids = self.store.annotation_ids(self._key, self.standing.mark)
        missing: list[int] = []
        while some := list(islice(ids, _IDS_AT_ONCE)):
            missing += self.seen.lacking(some)
        return missing


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
