"""Which tasks lack a prediction of a version, and the jobs that are to give them one."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count, islice
from typing import Any, Final

from redis import Redis

from backend.jobs import ALLOWED
from backend.label_studio import LabelStudio
from backend.preannotate.book import Book
from backend.preannotate.pushing import has_version
from backend.reconcile.patience import Patience
from backend.reconcile.walk import TaskWalk
from segzero_ml.errors import ConfigError, JobError
from training_hooks.queue_jobs import make_job_id
from training_hooks.queues import QueueName, Queues

_log = logging.getLogger(__name__)

QUEUE: Final = QueueName.PREDICT

TASKS_PER_JOB: Final = 16
"""Enough to fill the model's batches, few enough that a killed job costs little."""

_ALIVE: Final = frozenset({"queued", "started", "scheduled", "deferred"})


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tasks of a project are meant.

    Args:
        data: Field of the task's data → pattern of its whole text, with `*` and `?`.
        unannotated: Only tasks without an annotation.
        stale: Only tasks with a prediction of another version.
        limit: Most tasks; None for all.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    unannotated: bool = False
    stale: bool = False
    limit: int | None = None

    @classmethod
    def parse(cls, filters: Sequence[str], **more: Any) -> Selection:
        """From `FIELD=PATTERN` as on the command line.

        Raises:
            ConfigError: A filter has no such form.
        """
        data = {}
        for text in filters:
            name, equals, pattern = text.partition("=")
            if not name or not equals:
                raise ConfigError(
                    f"The filter {text!r} is not FIELD=PATTERN.",
                    'For instance: --filter "request=*red*"',
                )
            data[name] = pattern
        return cls(data, **more)

    def takes(self, task: Mapping[str, Any], version: str) -> bool:
        """Whether a task, as Label Studio lists it, is meant and lacks the version."""
        if has_version(task, version):
            return False
        if self.stale and not task.get("predictions"):
            return False
        if self.unannotated and task.get("annotations"):
            return False
        data = task.get("data") or {}
        return all(
            name in data and fnmatchcase(_text(data[name]), pattern)
            for name, pattern in self.data.items()
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done in a project.

    Args:
        project: Its id.
        version: The model version.
        tasks: Tasks that lack it, by rising id.
        total: How many tasks the project has.
    """

    project: int
    version: str
    tasks: tuple[int, ...]
    total: int


def make_plan(
    client: LabelStudio,
    project: int,
    version: str,
    selection: Selection,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """List the tasks that are meant and lack a prediction of the version.

    A task whose contents Label Studio does not give is left out; the log says which and why.

    Args:
        client: Label Studio.
        project: Id of the project.
        version: Model version.
        selection: Which tasks are meant.
        progress: Told how many tasks were looked at, of how many.

    Raises:
        LabelStudioError: Label Studio does not answer, or refuses.
    """
    walk = TaskWalk(client.listing, project, Patience(), calls_backend=False)

    def wanted() -> Iterator[int]:
        seen = 0
        for part in walk.parts():
            for task in part.page.tasks:
                if int(task["id"]) in part.unreadable:
                    fields = {"task": task["id"], "reason": part.unreadable[int(task["id"])]}
                    _log.warning("preannotate.task_unreadable", extra={"fields": fields})
                elif selection.takes(task, version):
                    yield int(task["id"])
            seen += len(part.page.tasks)
            progress(seen, walk.total)

    tasks = tuple(islice(wanted(), selection.limit))
    return Plan(project, version, tasks, walk.total)


def enqueue(plan: Plan, redis: Redis, label_studio: str) -> int:
    """Put jobs into the queue for the tasks of a plan that no living job has.

    Safe to repeat and to do twice at the same time: a task is claimed before its job is made,
    and claims of jobs that are gone are taken over.

    Args:
        plan: What is to be done.
        redis: Where queues and claims are.
        label_studio: The name of this Label Studio.

    Returns:
        How many jobs are new.

    Raises:
        StoreError: Redis does not answer or has no room.
    """
    queues = Queues(redis, ALLOWED)
    book = Book(redis, label_studio, plan.project, plan.version)
    book.release(orphans(queues, book, plan.tasks))
    book.forget_failures(plan.tasks)
    known = book.pending()
    free = [task for task in plan.tasks if task not in known]
    jobs = 0
    for start in range(0, len(free), TASKS_PER_JOB):
        chunk = free[start : start + TASKS_PER_JOB]
        job_id = _job_id(label_studio, plan, chunk, queues)
        tasks = book.claim(chunk, job_id)
        if tasks:
            kwargs = {"project": plan.project, "tasks": tasks, "version": plan.version}
            jobs += queues.enqueue(QUEUE, "predict", job_id, kwargs)
    return jobs


def orphans(queues: Queues, book: Book, tasks: Sequence[int]) -> list[int]:
    """Those of the tasks that are noted as waiting, and whose job will not come to them."""
    wanted = set(tasks)
    by_job: dict[str, list[int]] = {}
    for task, job_id in book.pending().items():
        if task in wanted:
            by_job.setdefault(job_id, []).append(task)
    return [
        task for job_id, held in by_job.items() if not _is_alive(queues, job_id) for task in held
    ]


def _is_alive(queues: Queues, job_id: str) -> bool:
    try:
        return queues.find(job_id).status in _ALIVE
    except JobError:
        return False


def _job_id(label_studio: str, plan: Plan, chunk: Sequence[int], queues: Queues) -> str:
    """Names project, tasks and version; a number more where such a job has ended before."""
    digest = hashlib.sha256(json.dumps(chunk).encode()).hexdigest()[:12]
    name = ("predict", label_studio, plan.project, chunk[0], digest, plan.version)
    for attempt in count():
        job_id = make_job_id(*name, revision=attempt)
        try:
            if queues.find(job_id).status in _ALIVE:
                return job_id
        except JobError:
            return job_id
    raise AssertionError  # not reached: count() does not end


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
