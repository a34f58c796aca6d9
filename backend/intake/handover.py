"""From records of the spool to jobs: what to enqueue, under which id. Touches nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from backend.intake.changes import (
    LONGEST_TEXT,
    AnnotationsGone,
    Job,
    Saved,
    SavedElsewhere,
    TasksGone,
    Unsure,
    kind_of,
    pack,
)
from backend.intake.events import read_event
from training_hooks.queue_jobs import make_job_id
from training_hooks.spool import Record

_IDS_PER_JOB: Final = 5000


@dataclass(frozen=True, slots=True)
class Order:
    """A job to enqueue.

    Args:
        job_id: The same for the same event, however often it is handed over.
        event: What the ingest job is called with.
    """

    job_id: str
    event: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a record asks for: jobs, and projects to compare with Label Studio (None: all)."""

    orders: tuple[Order, ...]
    unsure: tuple[int | None, ...]


def plan(record: Record) -> Plan:
    """Read a record.

    Raises:
        InputError: It is no event.
    """
    heard = datetime.fromtimestamp(record.appended_at, UTC)
    changes = read_event(record.payload, lambda: heard).changes or ()
    orders, unsure = [], []
    for change in changes:
        if isinstance(change, Unsure):
            unsure.append(change.project)
        else:
            orders += [_order(part, record.seq) for part in _parts(change)]
    return Plan(tuple(orders), tuple(dict.fromkeys(unsure)))


def _order(change: Job, seq: int) -> Order:
    text = pack(change)
    if isinstance(change, Saved):
        digest = hashlib.sha256(text.encode()).hexdigest()
        annotation = int(change.annotation["id"])
        if len(text) > LONGEST_TEXT:
            text = pack(SavedElsewhere(change.project, int(change.task["id"]), annotation))
        # By its content: an event that comes five times is one job.
        return Order(make_job_id("saved", change.project, annotation, revision=digest), text)
    # By its record: what looks the same later may be needed again.
    parts = (kind_of(change), change.project or 0, hashlib.sha256(text.encode()).hexdigest()[:16])
    return Order(make_job_id(*parts, revision=seq), text)


def _parts(change: Job) -> Iterator[Job]:
    """A change in pieces of which each fits into a job."""
    if isinstance(change, AnnotationsGone):
        for ids in _pieces(change.annotations):
            yield AnnotationsGone(change.project, ids)
    elif isinstance(change, TasksGone):
        for ids in _pieces(change.tasks):
            yield TasksGone(change.project, ids)
    else:
        yield change


def _pieces(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(ids), _IDS_PER_JOB):
        yield tuple(ids[start : start + _IDS_PER_JOB])
