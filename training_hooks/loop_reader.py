"""What the start of rounds hangs on, read from the store without reading the masks.

Names of the watermarks, see `training_hooks.store_reader`:

```
start_training   when *Start training* was pressed last (written by the intake)
trained          when the newest correction was saved that the last round looked at, by Label
                 Studio's clock: what was saved after it is new
round_started    when the last round began
round_ended      when the last round ended, whatever came of it
round_failed     the same moment where it failed
```
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from segzero_ml.corrections import Verdict
from training_hooks.redis_client import redis_errors
from training_hooks.store import CorrectionStore
from training_hooks.store_reader import CorrectionReader, text
from training_hooks.store_values import MILLION, ProjectKey

START_TRAINING: Final = "start_training"
TRAINED: Final = "trained"
ROUND_STARTED: Final = "round_started"
ROUND_ENDED: Final = "round_ended"
ROUND_FAILED: Final = "round_failed"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """A correction without its masks and texts.

    Args:
        annotation: Id of the annotation.
        verdict: What the annotator made of the prediction.
        updated_at: When it was saved, by Label Studio's clock.
        learnt_at: When the store learnt it, by Redis's clock.
        was_shown: Whether it began with a prediction.
        edit_iou: Overlap of the prediction with what became of it, in [0, 1], or None.
    """

    annotation: int
    verdict: Verdict
    updated_at: datetime
    learnt_at: datetime
    was_shown: bool
    edit_iou: float | None


class LoopReader(CorrectionReader):
    """Reads corrections by the time at which they were saved."""

    def saved_after(
        self, project: ProjectKey, since: datetime | None, limit: int
    ) -> tuple[Row, ...]:
        """Those saved after a moment, oldest first.

        Args:
            project: Which project.
            since: The moment; None: all there are.
            limit: At most so many.

        Raises:
            StoreError: Redis does not answer.
        """
        above = "-inf" if since is None else f"({_microseconds(since)}"
        with redis_errors("reading which corrections are new"):
            found: Any = self._redis.zrangebyscore(
                f"{self._base(project)}:updated", above, "+inf", start=0, num=limit, withscores=True
            )
        return tuple(self._rows(project, found))

    def saved_last(self, project: ProjectKey, limit: int) -> tuple[Row, ...]:
        """Those saved last, newest first.

        Raises:
            StoreError: Redis does not answer.
        """
        with redis_errors("reading the newest corrections"):
            found: Any = self._redis.zrange(
                f"{self._base(project)}:updated", 0, limit - 1, desc=True, withscores=True
            )
        return tuple(self._rows(project, found))

    def _rows(self, project: ProjectKey, found: list[tuple[bytes, float]]) -> Iterator[Row]:
        names = ["verdict", "shown", "iou", "number"]
        for start in range(0, len(found), _AT_ONCE):
            some = [(int(annotation), int(score)) for annotation, score in found[start:][:_AT_ONCE]]
            with (
                redis_errors("reading corrections"),
                self._redis.pipeline(transaction=False) as pipe,
            ):
                for annotation, _ in some:
                    pipe.hmget(self._row(project, annotation), names)
                rows: list[Any] = pipe.execute()
            for (annotation, saved), (verdict, shown, iou, number) in zip(some, rows, strict=True):
                if not verdict:  # gone, or withdrawn, since the index was read
                    continue
                yield Row(
                    annotation,
                    Verdict(text(verdict)),
                    _moment(saved),
                    _moment(int(number)),
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
    store: CorrectionStore, project: ProjectKey, at: datetime, watermark: datetime | None
) -> None:
    """Remember that a round ended.

    Args:
        store: The store.
        project: Which project.
        at: When.
        watermark: That of its snapshot, whether or not its model was promoted; None where it
            failed, so that its corrections stay new.

    Raises:
        StoreError: Redis does not answer.
    """
    if watermark is None:
        store.set_watermark(project, ROUND_FAILED, at)
    else:
        store.set_watermark(project, TRAINED, watermark)
    store.set_watermark(project, ROUND_ENDED, at)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
