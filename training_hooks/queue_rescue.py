"""Moves jobs on that nobody else will: forgotten, abandoned, or due for another try.

RQ does this every ten minutes, or in a process of its own; here each worker does it every few
seconds, between two jobs and while it waits for one. See `queue_moves` for the picture.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from redis.client import Pipeline
from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus

from training_hooks.job_errors import JobRefusedError
from training_hooks.queue_jobs import AllowedJob, fetch
from training_hooks.queue_moves import Move, bury, bury_unreadable, settle_failure, transact

_log = logging.getLogger(__name__)

_PROMOTE_AT_ONCE: Final = 500


def rescue_popped(queue: Queue, first_seen: dict[str, float], older_than_s: float) -> int:
    """Put jobs back that were popped and then forgotten by a worker that died.

    Args:
        queue: The queue.
        first_seen: Job id → when this worker first saw it popped, on the monotonic clock;
            kept between calls.
        older_than_s: How long a job may be popped without being claimed.

    Returns:
        How many were put back, at the front.
    """
    popped, waiting = queue.intermediate_queue_key, queue.key
    now = time.monotonic()
    present = {as_text(job_id) for job_id in queue.connection.lrange(popped, 0, -1)}
    for job_id in set(first_seen) - present:
        del first_seen[job_id]
    rescued = 0
    for job_id in present:
        if now - first_seen.setdefault(job_id, now) < older_than_s:
            continue
        key = queue.job_class.key_for(job_id)

        def step(pipe: Pipeline, job_id: str = job_id, key: str = key) -> bool:
            queued = pipe.type(key) == b"hash" and pipe.hget(key, "status") == b"queued"
            twice = pipe.lpos(waiting, job_id) is not None
            if pipe.lpos(popped, job_id) is None:
                return False
            pipe.multi()
            pipe.lrem(popped, 1, job_id)
            if queued and not twice:
                pipe.lpush(waiting, job_id)
            return queued and not twice

        rescued += bool(transact(queue, step, popped, waiting, key))
    return rescued


def rescue_abandoned(queue: Queue) -> int:
    """Treat running jobs as failed that nobody has renewed in time: their worker died.

    Returns:
        How many there were.
    """
    wip, now = queue.started_job_registry.key, time.time()
    rescued = 0
    for entry in queue.connection.zrangebyscore(wip, "-inf", now):
        composite = as_text(entry)
        job_id, _, execution_id = composite.partition(":")
        execution = Execution(execution_id, job_id, queue.connection)
        job = _fetch_or_bury(queue, job_id)
        if job is None or job.get_status(refresh=False) != JobStatus.STARTED:
            queue.connection.zrem(wip, composite)
            continue
        move = settle_failure(
            queue, job, execution, "The worker that ran it died.", abandoned_at=now
        )
        if move is not Move.LOST:
            rescued += 1
            _log.warning("Job %s was abandoned by a worker that died: %s.", job_id, move)
    return rescued


def promote_due(queue: Queue) -> int:
    """Put jobs whose next try is due at the end of the queue: scheduled → waiting.

    Returns:
        How many were put there.
    """
    scheduled = queue.scheduled_job_registry.key
    due = queue.connection.zrangebyscore(scheduled, "-inf", time.time(), 0, _PROMOTE_AT_ONCE)
    promoted = 0
    for entry in due:
        job_id = as_text(entry)
        job = _fetch_or_bury(queue, job_id)
        refusal = None if job is None else job.refusal()
        if job is None:
            queue.connection.zrem(scheduled, job_id)
        elif refusal is not None:
            bury(queue, job, refusal)
        else:

            def step(pipe: Pipeline, job: Job = job) -> bool:
                if pipe.zscore(scheduled, job.id) is None:
                    return False
                pipe.multi()
                pipe.zrem(scheduled, job.id)
                queue.enqueue_job(job, pipeline=pipe)
                return True

            promoted += bool(transact(queue, step, scheduled))
    return promoted


def _fetch_or_bury(queue: Queue, job_id: str) -> AllowedJob | None:
    try:
        return fetch(queue, job_id)
    except JobRefusedError as error:
        bury_unreadable(queue, job_id, error.message)
        return None


def forget_expired(queue: Queue) -> None:
    """Drop the entries of finished and failed jobs whose time is over."""
    queue.finished_job_registry.cleanup()
    queue.failed_job_registry.cleanup()


def as_text(value: object) -> str:
    """What Redis replied, as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
