"""Every move of a job from one place to another, each one a single Redis transaction.

```
             enqueue                BLMOVE                  claim
    (new) ────────────▶ waiting ────────────▶ popped ────────────────▶ running
                         ▲   ▲                  │                       │ │ │
                         │   └── rescue_popped ─┘     settle_success    │ │ │
                         │                        finished ◀────────────┘ │ │
                         │ promote_due            settle_failure          │ │
                     scheduled ◀── tries are left ◀───────────────────────┘ │
                                   none left ──▶ failed, a dead letter      │
                         waiting, at the front ◀── put_back ────────────────┤
                                      canceled ◀── settle_cancelled ────────┘
```

RQ does some of these in several steps; a crash between two of them loses a job or runs it
twice. Here a move first watches where the job should be, and does nothing if it is not there
any more: of two workers that believe they own a job, one moves it and the other is told.

Redis keys, all of RQ's making:
    rq:queue:{queue}               list of waiting job ids
    rq:queue:{queue}:intermediate  list of popped ones
    rq:wip:{queue}                 sorted set, `job:execution` by the time it counts as abandoned
    rq:scheduled:{queue}           sorted set, job id by the time of its next try
    rq:failed:{queue}              sorted set, job id by the time it is forgotten
    rq:job:{id}                    hash, the job
    rq:results:{id}                stream, how it ended
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from redis import Redis
from redis.client import Pipeline
from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.results import Result
from rq.timeouts import BaseDeathPenalty

from training_hooks.failures import reason_line
from training_hooks.job_errors import JobRefusedError
from training_hooks.queue_jobs import JsonSerializer, is_job_id

_log = logging.getLogger(__name__)

FAILURE_TTL_S: Final = 365 * 24 * 3600
"""A dead letter is kept for a year, or until it is tried again."""
CANCELLED_TTL_S: Final = 24 * 3600


class Move(StrEnum):
    """What became of a job that a worker had."""

    FINISHED = "finished"
    RETRIED = "retried"
    DEAD = "dead"
    LOST = "lost"
    """It was not this worker's any more; nothing was changed."""


class GuardedQueue(Queue):
    """A queue whose unreadable jobs do not stop the worker."""

    @classmethod
    def dequeue_any(
        cls,
        queues: Iterable[Queue],
        timeout: int | None,
        connection: Redis,
        job_class: type[Job] | None = None,
        serializer: Any = None,
        death_penalty_class: type[BaseDeathPenalty] | None = None,
    ) -> tuple[Job, Queue] | None:
        """As RQ's; a job that cannot be read becomes a dead letter, and the next is taken."""
        (queue,) = queues
        while True:
            try:
                return super().dequeue_any(
                    [queue], timeout, connection, job_class, serializer, death_penalty_class
                )
            except JobRefusedError as error:
                bury_unreadable(queue, error.job_id, error.message)


def claim(queue: Queue, job: Job, worker: str, ttl_s: int) -> Execution | None:
    """Take a popped job for running: popped → running.

    Args:
        queue: Where it was popped.
        job: The job.
        worker: The worker's name.
        ttl_s: Seconds after which it counts as abandoned unless `renew` is called.

    Returns:
        The execution, or None if somebody else has the job, or it waits no more (cancelled,
        or its id stood in the queue twice): then it is not to be run.
    """
    popped = queue.intermediate_queue_key

    def step(pipe: Pipeline) -> Execution | None:
        there = pipe.lpos(popped, job.id) is not None
        waiting = pipe.hget(job.key, "status") == JobStatus.QUEUED.encode()
        pipe.multi()
        pipe.lrem(popped, 1, job.id)
        if not (there and waiting):
            return None
        execution = Execution.create(job, ttl_s, pipeline=pipe, worker_name=worker)
        job.prepare_for_execution(worker, pipeline=pipe)
        pipe.persist(job.key)
        return execution

    return transact(queue, step, popped, job.key)  # type: ignore[no-any-return]


def renew(queue: Queue, execution: Execution, ttl_s: int) -> bool:
    """Say that a running job is being worked on.

    Returns:
        False if it is not this worker's any more: it ended, or was taken for abandoned.
    """
    wip = queue.started_job_registry.key
    if queue.connection.zscore(wip, execution.composite_key) is None:
        return False
    execution.last_heartbeat = datetime.now(UTC)
    with queue.connection.pipeline() as pipe:
        pipe.zadd(wip, {execution.composite_key: time.time() + ttl_s}, xx=True)
        # Written anew, not only prolonged: it may have expired while Redis was away.
        execution.save(ttl_s, pipeline=pipe)
        pipe.execute()
    return True


def settle_success(queue: Queue, job: Job, execution: Execution, value: Any, ttl_s: int) -> Move:
    """Record the result of a running job: running → finished.

    Args:
        queue: The job's queue.
        job: The job.
        execution: What `claim` returned.
        value: Its result; what JSON cannot say is replaced by a note.
        ttl_s: Seconds for which the result, and the guard against a second job of the same
            id, are kept.
    """

    def step(pipe: Pipeline) -> Move:
        if pipe.zscore(queue.started_job_registry.key, execution.composite_key) is None:
            return Move.LOST
        pipe.multi()
        execution.delete(job, pipeline=pipe)
        job.ended_at = datetime.now(UTC)
        job.set_status(JobStatus.FINISHED, pipeline=pipe)
        # The running job saved its progress itself: not to be overwritten.
        job.save(pipeline=pipe, include_meta=False, include_result=False)
        Result.create(job, Result.Type.SUCCESSFUL, ttl_s, return_value=value, pipeline=pipe)
        queue.finished_job_registry.add(job, ttl_s, pipe)
        pipe.expire(job.key, ttl_s)
        return Move.FINISHED

    return _settle(queue, step)


def settle_failure(
    queue: Queue, job: Job, execution: Execution, summary: str, *, abandoned_at: float | None = None
) -> Move:
    """Try a failed job again, or bury it: running → scheduled, waiting or failed.

    Args:
        queue: The job's queue.
        job: The job.
        execution: What `claim` returned.
        summary: Why it failed; the first line is the reason.
        abandoned_at: If given, act only if the job counted as abandoned at that time.
    """
    left = job.retries_left or 0

    def step(pipe: Pipeline) -> Move:
        expiry = pipe.zscore(queue.started_job_registry.key, execution.composite_key)
        if expiry is None or (abandoned_at is not None and expiry > abandoned_at):
            return Move.LOST
        pipe.multi()
        execution.delete(job, pipeline=pipe)
        job.ended_at = datetime.now(UTC)
        if left < 1:
            _bury(queue, job, summary, pipe)
            return Move.DEAD
        wait = _next_wait(job.retry_intervals, left)
        job.retries_left = left - 1
        job.meta = {"last_failure": reason_line(summary.partition("\n")[0])}
        if wait:
            queue.schedule_job(job, datetime.now(UTC) + timedelta(seconds=wait), pipeline=pipe)
        else:
            queue.enqueue_job(job, pipeline=pipe)
        return Move.RETRIED

    return _settle(queue, step)


def _next_wait(intervals: list[int] | None, left: int) -> int:
    """Seconds before the next try, `left` tries being left of as many as there are intervals."""
    if not intervals:
        return 0
    return intervals[min(max(len(intervals) - left, 0), len(intervals) - 1)]


def settle_cancelled(queue: Queue, job: Job, execution: Execution) -> Move:
    """End a running job that was asked to stop: running → canceled."""

    def step(pipe: Pipeline) -> Move:
        if pipe.zscore(queue.started_job_registry.key, execution.composite_key) is None:
            return Move.LOST
        pipe.multi()
        execution.delete(job, pipeline=pipe)
        job.ended_at = datetime.now(UTC)
        job.set_status(JobStatus.CANCELED, pipeline=pipe)
        pipe.expire(job.key, CANCELLED_TTL_S)
        return Move.FINISHED

    return _settle(queue, step)


def put_back(queue: Queue, job: Job, execution: Execution) -> Move:
    """Give up a running job that did nothing wrong, its worker being told to stop.

    Running → waiting, at the front; no try is used up.
    """

    def step(pipe: Pipeline) -> Move:
        if pipe.zscore(queue.started_job_registry.key, execution.composite_key) is None:
            return Move.LOST
        pipe.multi()
        execution.delete(job, pipeline=pipe)
        queue.enqueue_job(job, pipeline=pipe, at_front=True)
        return Move.RETRIED

    return _settle(queue, step)


def bury(queue: Queue, job: Job, summary: str) -> None:
    """Make a job that is not running a dead letter: waiting, popped or scheduled → failed."""
    with queue.connection.pipeline() as pipe:
        pipe.lrem(queue.intermediate_queue_key, 1, job.id)
        pipe.zrem(queue.scheduled_job_registry.key, job.id)
        # A damaged job may name another queue; its letter belongs where it was found.
        job.origin = queue.name
        _bury(queue, job, summary, pipe)
        pipe.execute()
    _log.error("Job %s of queue %s is a dead letter: %s", job.id, queue.name, summary)


def bury_unreadable(queue: Queue, job_id: str, summary: str) -> None:
    """Replace a job that cannot be read by a dead letter that can."""
    digest = hashlib.sha256(job_id.encode()).hexdigest()
    name = job_id if is_job_id(job_id) else f"unreadable-{digest}"
    job: Any = queue.job_class.create(
        "unreadable",
        args=[],
        kwargs={},
        connection=queue.connection,
        id=name[:100],
        origin=queue.name,
        description="unreadable",
        serializer=JsonSerializer,
    )
    with queue.connection.pipeline() as pipe:
        pipe.lrem(queue.intermediate_queue_key, 1, job_id)
        pipe.zrem(queue.scheduled_job_registry.key, job_id)
        pipe.delete(job.key)
        _bury(queue, job, summary, pipe)
        pipe.execute()
    _log.error("A job of queue %s is a dead letter: %s", queue.name, summary)


def _bury(queue: Queue, job: Job, summary: str, pipe: Pipeline) -> None:
    job.retries_left = 0
    job.set_status(JobStatus.FAILED, pipeline=pipe)
    queue.failed_job_registry.add(job, ttl=FAILURE_TTL_S, exc_string=summary, pipeline=pipe)
    Result.create_failure(job, FAILURE_TTL_S, summary, pipeline=pipe)


def _settle(queue: Queue, step: Any) -> Move:
    return Move(transact(queue, step, queue.started_job_registry.key))


def transact(queue: Queue, step: Any, *keys: str) -> Any:
    """Run `step` on a pipeline that watches `keys`, again when they changed meanwhile."""
    return queue.connection.transaction(step, *keys, value_from_callable=True)
