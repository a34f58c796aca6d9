"""From records of the spool to jobs: what to enqueue, under which id. Touches nothing.

In a burst a job carries many changes, as a job of its own costs far more than what it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
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

MOST_CHANGES: Final = 50
"""Changes that one job carries."""

_IDS_PER_CHANGE: Final = 5000
_SECONDS: Final = 120
_SECONDS_PER_CHANGE: Final = 15


@dataclass(frozen=True, slots=True)
class Order:
    """One change on its way to a job.

    Args:
        name: Id of a job with this change alone; the same for the same event, however often
            it is handed over.
        text: The change, packed.
    """

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Parcel:
    """A job to enqueue.

    Args:
        job_id: Its id.
        changes: What it carries, packed.
        timeout_s: Seconds it may run.
    """

    job_id: str
    changes: tuple[str, ...]
    timeout_s: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a record asks for: changes, and projects to compare with Label Studio (None: all)."""

    orders: tuple[Order, ...]
    unsure: tuple[int | None, ...]


def plan(record: Record) -> Plan:
    """Read a record.

    Raises:
        InputError: It is no event.
    """
    heard = datetime.fromtimestamp(record.appended_at, UTC)
    changes = read_event(record.payload, lambda: heard).changes or ()
    orders: list[Order] = []
    unsure: list[int | None] = []
    for change in changes:
        if isinstance(change, Unsure):
            unsure.append(change.project)
        else:
            orders += [order(part, str(record.seq)) for part in _parts(change)]
    return Plan(tuple(orders), tuple(dict.fromkeys(unsure)))


def order(change: Job, occasion: str) -> Order:
    """Pack a change.

    Args:
        change: What happened; it fits into a job, or is a saved annotation.
        occasion: Tells changes apart that look the same and may be needed again.
    """
    text = pack(change)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if isinstance(change, Saved):
        annotation = int(change.annotation["id"])
        if len(text) > LONGEST_TEXT:
            text = pack(SavedElsewhere(change.project, int(change.task["id"]), annotation))
        # By its content: an event that comes five times is one job.
        return Order(make_job_id("saved", change.project, annotation, revision=digest), text)
    parts = (kind_of(change), change.project or 0, digest[:16])
    return Order(make_job_id(*parts, revision=occasion), text)


def parcels(orders: Iterable[Order]) -> Iterator[Parcel]:
    """Put changes into as few jobs as can carry them; the same change only once."""
    gathered: list[Order] = []
    length = 0
    for one in dict.fromkeys(orders):
        if gathered and (len(gathered) == MOST_CHANGES or length + len(one.text) > LONGEST_TEXT):
            yield _parcel(gathered)
            gathered, length = [], 0
        gathered.append(one)
        length += len(one.text)
    if gathered:
        yield _parcel(gathered)


def _parcel(orders: Sequence[Order]) -> Parcel:
    name = orders[0].name
    if len(orders) > 1:
        digest = hashlib.sha256("\n".join(one.name for one in orders).encode()).hexdigest()
        name = make_job_id("several", len(orders), revision=digest)
    timeout_s = _SECONDS + _SECONDS_PER_CHANGE * (len(orders) - 1)
    return Parcel(name, tuple(one.text for one in orders), timeout_s)


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
    for start in range(0, len(ids), _IDS_PER_CHANGE):
        yield tuple(ids[start : start + _IDS_PER_CHANGE])
