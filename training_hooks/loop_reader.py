"""What the start of rounds hangs on, read from the store without reading the masks.

Names of the watermarks, see `training_hooks.store_reader`:

```
start_training   when *Start training* was pressed last (written by the intake)
learnt           up to when the last round knew the corrections, by Redis's clock: what the store
                 learnt after it is new, whenever it was saved
trained          the same in earlier versions: when the newest of those corrections was saved, by
                 Label Studio's clock; read where there is no `learnt` yet
round_started    when the last round began
round_ended      when the last round ended, whatever came of it
round_failed     the same moment where it failed, was cancelled or refused
gone             when Label Studio was first seen without the project; not there while it has it
```
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from segzero_ml.corrections import Verdict
from training_hooks.redis_client import redis_errors
from training_hooks.store import CorrectionStore
from training_hooks.store_reader import CorrectionReader, text
from training_hooks.store_values import MILLION, News, ProjectKey, microseconds, moment_of

START_TRAINING: Final = "start_training"
LEARNT: Final = "learnt"
TRAINED: Final = "trained"
ROUND_STARTED: Final = "round_started"
ROUND_ENDED: Final = "round_ended"
ROUND_FAILED: Final = "round_failed"
GONE: Final = "gone"

_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """A correction without its masks and texts.

    Args:
        annotation: Id of the annotation.
        verdict: What the annotator made of the prediction.
        number: Tells when the store learnt it, see `training_hooks.store_reader`.
        was_shown: Whether it began with a prediction.
        edit_iou: Overlap of the prediction with what became of it, in [0, 1], or None.
    """

    annotation: int
    verdict: Verdict
    number: int
    was_shown: bool
    edit_iou: float | None

    @property
    def learnt_at(self) -> datetime:
        """When the store learnt it, by Redis's clock."""
        return moment_of(self.number)


class LoopReader(CorrectionReader):
    """Reads what came after the last round.

    That is told by the numbers of the store, not by the time at which a correction was saved:
    webhooks may come late, and in any order.
    """

    def trained_until(self, project: ProjectKey) -> int | None:
        """The `mark` up to which the last round knew the corrections; None: there was none.

        Raises:
            StoreError: Redis does not answer.
        """
        known = self.watermark(project, LEARNT)
        return self._as_before(project) if known is None else microseconds(known)

    def news(self, project: ProjectKey) -> News | None:
        """Which corrections came after the last round; None: there was none, all are new.

        Raises:
            StoreError: Redis does not answer.
        """
        mark = after = self.trained_until(project)
        if mark is None or after is None:
            return None
        annotations: set[int] = set()
        while found := self._numbered(f"{self._base(project)}:order", after, "+inf", _AT_ONCE):
            annotations.update(annotation for annotation, _ in found)
            after = found[-1][1]
        with redis_errors("reading which corrections no round has seen"):
            kept: Any = self._redis.smembers(f"{self._base(project)}:unseen")
        unseen = frozenset(map(int, kept))
        return News(moment_of(mark), unseen.union(annotations), unseen.difference(annotations))

    def learnt_after(self, project: ProjectKey, mark: int | None, limit: int) -> tuple[Row, ...]:
        """Those that the store learnt after a mark, in this order.

        One that is saved again meanwhile is there as it is now.

        Args:
            project: Which project.
            mark: The mark; None: all there are.
            limit: At most so many.

        Raises:
            StoreError: Redis does not answer.
        """
        found = self._numbered(f"{self._base(project)}:order", mark or 0, "+inf", limit)
        rows = self._rows(project, [annotation for annotation, _ in found])
        # What changed since the index was read has a greater number than its place there.
        return tuple(sorted(rows, key=lambda row: row.number))

    def saved_last(self, project: ProjectKey, limit: int) -> tuple[Row, ...]:
        """Those saved last by Label Studio's clock, newest first.

        Raises:
            StoreError: Redis does not answer.
        """
        with redis_errors("reading the newest corrections"):
            found: Any = self._redis.zrange(
                f"{self._base(project)}:updated", 0, limit - 1, desc=True
            )
        return tuple(self._rows(project, [int(one) for one in found]))

    def _as_before(self, project: ProjectKey) -> int | None:
        """What a watermark of an earlier version means: rather too much is new than too little.

        New is what the store learnt after that round began, and what was saved after it.
        """
        saved = self.watermark(project, TRAINED)
        began = self.watermark(project, ROUND_STARTED)
        if saved is None or began is None:
            return None
        with redis_errors("reading which corrections are new"):
            found: Any = self._redis.zrangebyscore(
                f"{self._base(project)}:updated", f"({microseconds(saved)}", "+inf"
            )
        later = self._rows(project, [int(one) for one in found])
        return min([microseconds(began), *(row.number - 1 for row in later)])

    def _rows(self, project: ProjectKey, annotations: list[int]) -> Iterator[Row]:
        names = ["verdict", "shown", "iou", "number"]
        for start in range(0, len(annotations), _AT_ONCE):
            some = annotations[start:][:_AT_ONCE]
            with (
                redis_errors("reading corrections"),
                self._redis.pipeline(transaction=False) as pipe,
            ):
                for annotation in some:
                    pipe.hmget(self._row(project, annotation), names)
                rows: list[Any] = pipe.execute()
            for annotation, (verdict, shown, iou, number) in zip(some, rows, strict=True):
                if not verdict:  # gone, or withdrawn, since the index was read
                    continue
                yield Row(
                    annotation,
                    Verdict(text(verdict)),
                    int(number),
                    text(shown) == "shown",
                    int(iou) / MILLION if iou else None,
                )


def note_start(store: CorrectionStore, project: ProjectKey, at: datetime) -> None:
    """Remember that a round begins.

    Raises:
        StoreError: Redis does not answer.
    """
    store.set_watermark(project, ROUND_STARTED, at)


def note_end(
    store: CorrectionStore,
    project: ProjectKey,
    at: datetime,
    mark: int | None,
    unseen: Collection[int] = (),
) -> None:
    """Remember that a round ended.

    Args:
        store: The store.
        project: Which project.
        at: When.
        mark: The store's, taken before the round read the corrections, whether or not its model
            was promoted; None where it failed, so that its corrections stay new.
        unseen: Annotations that it could not look at: they stay new to the next one, though they
            start none, as the hosts of their images may be away for good.

    Raises:
        StoreError: Redis does not answer.
    """
    if mark is None:
        store.set_watermark(project, ROUND_FAILED, at)
    else:
        store.set_unseen(project, unseen)  # first: killed in between, all is new
        store.set_watermark(project, LEARNT, moment_of(mark))
    store.set_watermark(project, ROUND_ENDED, at)


def note_gone(store: CorrectionStore, project: ProjectKey, at: datetime) -> None:
    """Remember that Label Studio has a project no more: no round is run for it.

    Raises:
        StoreError: Redis does not answer.
    """
    if store.watermark(project, GONE) is None:
        store.set_watermark(project, GONE, at)


def note_there(store: CorrectionStore, project: ProjectKey) -> None:
    """Remember that Label Studio has a project, whatever was noted before.

    Raises:
        StoreError: Redis does not answer.
    """
    store.forget_watermark(project, GONE)
