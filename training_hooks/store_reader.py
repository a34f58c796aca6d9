"""Reading the corrections: one by one, by task, in pages, and in numbers.

Keys, each after `segzero:corrections:{16 digits of the Label Studio's SHA-256}:{project}`;
a *number* tells when the store learnt something, greater means later: microseconds of Redis's
clock, or one more than the last number where that is greater:

```
:sequence          string  the last number given out
:annotation:{id}   hash    revision  18 digits of microseconds, ":", content hash
                           number    when the store learnt it
                           task      id of the task
                           verdict   empty: withdrawn, the annotation holds no truth now
                           shown     "shown" or "alone": began with a prediction or with nothing
                           iou       edit IoU in millionths, or empty
                           body      compressed JSON of the correction, or empty
:order             zset    annotation -> number, all but the withdrawn
:updated           zset    annotation -> updated_at in microseconds, all but the withdrawn
:verdict:{verdict} zset    annotation -> number
:withdrawn         zset    annotation -> number
:task:{id}         set     annotations of the task
:lead:shown        zset    annotation -> lead time in seconds, those that began with a prediction
:lead:alone        zset    the same for the others
:sums              hash    shown, alone: how many; ious, iou: how many and their sum in millionths
:deleted           zset    annotation -> number of its deletion; kept for good
:deleted-tasks     zset    task -> number of its deletion; kept for good
:watermarks        hash    name -> time in ISO 8601
:unseen            set     annotations that the last round could not look at; still new
```

`segzero:corrections:projects` is a hash of `{digits}:{project}` -> `[label studio, project]`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from redis import Redis

from segzero_ml.checks import read_time
from segzero_ml.corrections import Correction, CorrectionKey, Verdict
from segzero_ml.errors import InputError, StoreError
from training_hooks import store_scripts
from training_hooks.redis_client import redis_errors
from training_hooks.store_values import (
    MILLION,
    Known,
    Page,
    ProjectKey,
    Statistics,
    from_sortable,
    unpack,
)

_log = logging.getLogger(__name__)

PREFIX: Final = "segzero:corrections"
LARGEST_PAGE: Final = 1000

_IDS_AT_ONCE: Final = 1000


class CorrectionReader:
    """Reads the corrections of all projects; `store.CorrectionStore` writes as well.

    All methods raise `StoreError` when Redis does not answer or refuses.

    Args:
        client: From `redis_client.connect`; must give bytes.
        prefix: What the names of all keys begin with.
    """

    def __init__(self, client: Redis, prefix: str = PREFIX) -> None:
        self._redis = client
        self._prefix = prefix
        self._statistics = client.register_script(store_scripts.STATISTICS)

    def get(self, key: CorrectionKey) -> Correction | None:
        """The correction of an annotation; None if there is none."""
        with redis_errors("reading a correction"):
            body = self._redis.hget(self._row(ProjectKey.of(key), key.annotation), "body")
        return unpack(_bytes(body)) if body else None

    def of_task(self, project: ProjectKey, task: int) -> tuple[Correction, ...]:
        """All corrections of a task, by annotation id: one for each who annotated it."""
        with redis_errors("reading the corrections of a task"):
            found: Any = self._redis.smembers(f"{self._base(project)}:task:{task}")
        bodies = self._bodies(project, sorted(int(one) for one in found))
        return tuple(unpack(body) for body in bodies if body)

    def annotations_of(self, project: ProjectKey, tasks: Sequence[int]) -> list[int]:
        """How many annotations each of the tasks has, the withdrawn ones too."""
        base = self._base(project)
        with redis_errors("counting annotations"), self._redis.pipeline(transaction=False) as pipe:
            for task in tasks:
                pipe.scard(f"{base}:task:{task}")
            return [int(count) for count in pipe.execute()]

    def page(
        self,
        project: ProjectKey,
        after: int = 0,
        limit: int = 100,
        verdict: Verdict | None = None,
        *,
        newest_first: bool = False,
    ) -> Page:
        """Read corrections in the order in which the store learnt their present revision.

        Whoever goes on to the last page sees every correction that is there all the time;
        one that changes meanwhile may be seen twice. Asking later, after the last page, gives
        what has changed since.

        Args:
            project: Which project.
            after: 0 for the first page, then `Page.after`.
            limit: Most corrections of a page, 1 to `LARGEST_PAGE`.
            verdict: Only those with this verdict.
            newest_first: From the last to the first; then what changes meanwhile is not seen.

        Raises:
            InputError: The limit is out of its range.
        """
        if not 1 <= limit <= LARGEST_PAGE:
            raise InputError(f"A page holds 1 to {LARGEST_PAGE} corrections, not {limit}.")
        index = "order" if verdict is None else f"verdict:{verdict.value}"
        key = f"{self._base(project)}:{index}"
        if newest_first:
            found = self._numbered_back(key, after, limit)
        else:
            found = self._numbered(key, after, "+inf", limit)
        corrections, unreadable = self._read(project, [annotation for annotation, _ in found])
        return Page(
            corrections=tuple(corrections),
            after=found[-1][1] if found else after,
            is_last=len(found) < limit,
            unreadable=tuple(unreadable),
        )

    def corrections(self, project: ProjectKey) -> Iterator[Correction]:
        """All that can be read, as `page` gives them; one that changes meanwhile may come twice."""
        after, is_last = 0, False
        while not is_last:
            page = self.page(project, after)
            yield from page.corrections
            for annotation in page.unreadable:
                _log.warning("The correction of annotation %d is damaged: left out", annotation)
            after, is_last = page.after, page.is_last

    def recent(self, project: ProjectKey, limit: int = 20) -> tuple[Correction, ...]:
        """The corrections saved last by Label Studio's clock, newest first.

        One that is damaged is left out.
        """
        with redis_errors("reading corrections"):
            key = f"{self._base(project)}:updated"
            found: Any = self._redis.zrange(key, 0, min(limit, LARGEST_PAGE) - 1, desc=True)
        return tuple(self._read(project, [int(one) for one in found])[0])

    def known(self, project: ProjectKey, annotations: Sequence[int]) -> dict[int, Known]:
        """What the store knows of some annotations; those it does not know are left out."""
        with redis_errors("reading revisions"), self._redis.pipeline(transaction=False) as pipe:
            for annotation in annotations:
                pipe.hmget(self._row(project, annotation), ["revision", "verdict"])
            rows: list[Any] = pipe.execute()
        return {
            annotation: Known(from_sortable(text(revision)), has_truth=bool(verdict))
            for annotation, (revision, verdict) in zip(annotations, rows, strict=True)
            if revision
        }

    def annotation_ids(self, project: ProjectKey, until: int) -> Iterator[int]:
        """Ids of the annotations that are not deleted, the withdrawn ones too.

        Args:
            project: Which project.
            until: A `mark`: only those that have not changed since.
        """
        for index in ("order", "withdrawn"):
            after = 0
            key = f"{self._base(project)}:{index}"
            while found := self._numbered(key, after, until, _IDS_AT_ONCE):
                yield from (annotation for annotation, _ in found)
                after = found[-1][1]

    def mark(self, project: ProjectKey) -> int:
        """Number of the project's last change: taken before Label Studio is asked for a list."""
        with redis_errors("reading the number of the last change"):
            return int(self._redis.get(f"{self._base(project)}:sequence") or 0)

    def statistics(self, project: ProjectKey) -> Statistics:
        """Counts, rates and medians of a project, as of one moment."""
        with redis_errors("counting corrections"):
            answer: list[Any] = self._statistics(keys=[self._base(project)], args=list(Verdict))
        counts, withdrawn, deleted, sums, shown, alone = answer
        verdicts = dict(zip(Verdict, map(int, counts), strict=True))
        began_with_prediction, ious, iou = (int(value or 0) for value in sums)
        accepted = verdicts[Verdict.ACCEPTED]
        return Statistics(
            verdicts=verdicts,
            withdrawn=int(withdrawn),
            deleted=int(deleted),
            accept_rate=accepted / began_with_prediction if began_with_prediction else None,
            mean_edit_iou=iou / ious / MILLION if ious else None,
            median_lead_time_shown_s=_middle(shown),
            median_lead_time_alone_s=_middle(alone),
        )

    def projects(self) -> tuple[ProjectKey, ...]:
        """All projects that have, or had, a correction."""
        with redis_errors("reading the list of projects"):
            found: list[Any] = self._redis.hvals(f"{self._prefix}:projects")
        return tuple(sorted((ProjectKey(*json.loads(one)) for one in found), key=_by_name))

    def watermark(self, project: ProjectKey, name: str) -> datetime | None:
        """The time remembered under a name, or None."""
        with redis_errors("reading a watermark"):
            found = self._redis.hget(f"{self._base(project)}:watermarks", name)
        return read_time("watermark", text(found)) if found else None

    def _numbered(
        self, key: str, after: int, until: int | str, limit: int
    ) -> list[tuple[int, int]]:
        """Annotations and their numbers, with numbers over `after` up to `until`."""
        with redis_errors("reading which corrections there are"):
            found: list[Any] = self._redis.zrangebyscore(
                key,
                f"({after}",
                until,
                start=0,
                num=limit,
                withscores=True,
            )
        return [(int(annotation), int(number)) for annotation, number in found]

    def _numbered_back(self, key: str, before: int, limit: int) -> list[tuple[int, int]]:
        """The same from the greatest number down; with numbers below `before` if it is not 0."""
        with redis_errors("reading which corrections there are"):
            found: list[Any] = self._redis.zrevrangebyscore(
                key,
                f"({before}" if before else "+inf",
                "-inf",
                start=0,
                num=limit,
                withscores=True,
            )
        return [(int(annotation), int(number)) for annotation, number in found]

    def _read(
        self, project: ProjectKey, annotations: list[int]
    ) -> tuple[list[Correction], list[int]]:
        """Corrections that are still there, and ids of those that are damaged."""
        corrections, unreadable = [], []
        for annotation, body in zip(annotations, self._bodies(project, annotations), strict=True):
            if not body:  # gone since the index was read
                continue
            try:
                corrections.append(unpack(body))
            except StoreError:
                unreadable.append(annotation)
        return corrections, unreadable

    def _bodies(self, project: ProjectKey, annotations: list[int]) -> list[bytes | None]:
        with (
            redis_errors("reading corrections"),
            self._redis.pipeline(transaction=False) as pipe,
        ):
            for annotation in annotations:
                pipe.hget(self._row(project, annotation), "body")
            return list(pipe.execute())

    def _name(self, project: ProjectKey) -> str:
        digits = hashlib.sha256(project.label_studio.encode()).hexdigest()[:16]
        return f"{digits}:{project.project}"

    def _base(self, project: ProjectKey) -> str:
        return f"{self._prefix}:{self._name(project)}"

    def _row(self, project: ProjectKey, annotation: int) -> str:
        return f"{self._base(project)}:annotation:{annotation}"


def _middle(values: list[bytes]) -> float | None:
    return sum(map(float, values)) / len(values) if values else None


def _by_name(project: ProjectKey) -> tuple[str, int]:
    return (project.label_studio, project.project)


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def text(value: bytes | str) -> str:
    """What Redis gives, as text."""
    return value.decode() if isinstance(value, bytes) else value
