"""The queues: what waits, what runs, how to add a job and how to end one.

Three queues, each with workers of its own: `ingest` turns Label Studio's events into stored
corrections, `predict` pre-annotates in bulk, `train` runs training rounds. What becomes of a
job is drawn in `queue_moves`, the keys in Redis are listed there too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.job import JobStatus
from rq.worker_registration import get_keys

from segzero_ml.errors import JobError
from training_hooks.failures import reason_line
from training_hooks.job_errors import JobRefusedError
from training_hooks.queue_jobs import (
    LARGEST_PAYLOAD,
    AllowedJob,
    JsonSerializer,
    bind,
    fetch,
    is_job_id,
    open_queue,
)
from training_hooks.queue_moves import CANCELLED_TTL_S, FAILURE_TTL_S, transact
from training_hooks.redis_client import redis_errors
from training_hooks.running_job import ask_to_end, is_asked_to_end


class QueueName(StrEnum):
    """The queues there are."""

    INGEST = "ingest"
    PREDICT = "predict"
    TRAIN = "train"


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How the jobs of one queue are treated.

    Attributes:
        timeout_s: Seconds a job may run.
        retry_after_s: Seconds before each further try; as many tries as numbers. A worker or
            a process that dies uses one up as well.
        result_ttl_s: Seconds for which a finished job is remembered, and a second one of the
            same id is not taken.
    """

    timeout_s: int
    retry_after_s: tuple[int, ...]
    result_ttl_s: int


POLICIES: Final[Mapping[QueueName, QueuePolicy]] = MappingProxyType(
    {
        QueueName.INGEST: QueuePolicy(120, (5, 30, 120, 600, 1800), 600),
        QueueName.PREDICT: QueuePolicy(3600, (10, 60), 3600),
        QueueName.TRAIN: QueuePolicy(24 * 3600, (10, 60, 300), 7 * 24 * 3600),
    }
)


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it stands.

    Attributes:
        job_id: Its id.
        queue: Its queue.
        function: The name of its function.
        status: RQ's word: queued, started, scheduled, finished, failed, canceled.
        enqueued_at: When it was last put in the queue.
        started_at: When it was last started.
        tries_left: How often it is tried again if it fails.
        progress: What the job said last: `done`, `total`, `note`, `at`.
        last_failure: Why the try before failed, if one did.
        asked_to_end: It runs, and was asked to end.
    """

    job_id: str
    queue: QueueName
    function: str
    status: str
    enqueued_at: datetime | None
    started_at: datetime | None
    tries_left: int
    progress: Mapping[str, Any] | None
    last_failure: str | None
    asked_to_end: bool


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many jobs of a queue are where, and how many workers it has."""

    waiting: int
    running: int
    scheduled: int
    dead: int
    workers: int


class Queues:
    """The queues on one Redis.

    Args:
        connection: Redis; replies must be bytes.
        allowed: Name of a function → dotted path: what jobs may call.
        policies: How jobs are treated, by queue.

    Raises:
        ConfigError: The allow-list is malformed.
    """

    def __init__(
        self,
        connection: Redis,
        allowed: Mapping[str, str],
        policies: Mapping[QueueName, QueuePolicy] = POLICIES,
    ) -> None:
        self.connection = connection
        self.policies = policies
        self._job_class = bind(allowed)

    def open(self, name: QueueName) -> Queue:
        """RQ's queue of that name."""
        return open_queue(name.value, self.connection, self._job_class)

    def enqueue(
        self,
        name: QueueName,
        function: str,
        job_id: str,
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout_s: int | None = None,
        at_front: bool = False,
    ) -> bool:
        """Add a job, unless one of that id is known already.

        Safe to repeat: only the first of several calls with one id adds a job, as long as
        that job waits, runs, is a dead letter, or ended less than `result_ttl_s` ago.

        Args:
            name: The queue.
            function: A name on the allow-list.
            job_id: From `make_job_id`.
            kwargs: What the function is called with; JSON, 1 MiB at most.
            timeout_s: Seconds it may run, instead of the policy's.
            at_front: Before all that waits.

        Returns:
            Whether the job is new.

        Raises:
            JobError: The id, the function or the arguments are not possible.
            StoreError: Redis does not answer or has no room.
        """
        job = self._build(name, function, job_id, kwargs or {}, timeout_s)
        queue = self.open(name)

        def step(pipe: Pipeline) -> bool:
            known = bool(pipe.exists(job.key))
            pipe.multi()
            if not known:
                queue.enqueue_job(job, pipeline=pipe, at_front=at_front)
            return not known

        with redis_errors("taking a job into a queue"):
            return bool(transact(queue, step, job.key))

    def _build(
        self,
        name: QueueName,
        function: str,
        job_id: str,
        kwargs: Mapping[str, Any],
        timeout_s: int | None,
    ) -> AllowedJob:
        policy = self.policies[name]
        if not is_job_id(job_id):
            raise JobError(
                f"{job_id[:80]!r} is no job id.", "Letters, digits, _ and - only; see make_job_id."
            )
        try:
            payload = JsonSerializer.dumps(dict(kwargs))
        except (TypeError, ValueError, RecursionError) as error:
            raise JobError(f"The arguments of job {job_id} are not JSON: {error}.") from error
        if len(payload) > LARGEST_PAYLOAD // 2:
            raise JobError(
                f"The arguments of job {job_id} are {len(payload)} bytes of JSON.",
                "Put large things in the store and hand over their key.",
            )
        tries = policy.retry_after_s
        job: Any = self._job_class.create(
            function,
            args=[],
            kwargs=dict(kwargs),
            connection=self.connection,
            result_ttl=policy.result_ttl_s,
            failure_ttl=FAILURE_TTL_S,
            description=function,
            timeout=policy.timeout_s if timeout_s is None else timeout_s,
            retry=Retry(max=len(tries), interval=list(tries)) if tries else None,
            id=job_id,
            origin=name.value,
            serializer=JsonSerializer,
        )
        refusal = job.refusal()
        if refusal is not None:
            raise JobRefusedError(refusal, job_id=job_id)
        return job  # type: ignore[no-any-return]

    def find(self, job_id: str) -> JobView:
        """What is known of a job.

        Raises:
            JobError: There is no such job, or it cannot be read.
            StoreError: Redis does not answer.
        """
        with redis_errors("being asked about a job"):
            job = self._fetch(job_id)
            asked = is_asked_to_end(job_id, self.connection)
        status = job.get_status(refresh=False)
        progress, failure = job.meta.get("progress"), job.meta.get("last_failure")
        return JobView(
            job_id=job.id,
            queue=QueueName(job.origin),
            function=job.shown_function,
            status=status.value,
            enqueued_at=job.enqueued_at,
            started_at=job.started_at,
            tries_left=job.retries_left or 0,
            progress=progress if isinstance(progress, dict) else None,
            last_failure=reason_line(failure) if isinstance(failure, str) else None,
            asked_to_end=asked and status == JobStatus.STARTED,
        )

    def cancel(self, job_id: str) -> bool:
        """End a job: at once if it waits, as soon as it looks if it runs.

        Returns:
            True if it is ended, False if it runs and was asked to end.

        Raises:
            JobError: There is no such job, or it has ended already.
            StoreError: Redis does not answer.
        """
        with redis_errors("cancelling a job"):
            job = self._fetch(job_id)
            queue = self.open(QueueName(job.origin))

            def step(pipe: Pipeline) -> str:
                status = (pipe.hget(job.key, "status") or b"").decode()  # type: ignore[union-attr]
                pipe.multi()
                if status in (JobStatus.QUEUED, JobStatus.SCHEDULED):
                    pipe.lrem(queue.key, 0, job.id)
                    pipe.zrem(queue.scheduled_job_registry.key, job.id)
                    # A worker that has just popped it sees the status and leaves it alone.
                    job.set_status(JobStatus.CANCELED, pipeline=pipe)
                    pipe.expire(job.key, CANCELLED_TTL_S)
                return status

            status = transact(queue, step, job.key)
            if status == JobStatus.STARTED:
                ask_to_end(job_id, self.connection)
        if status not in (JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.STARTED):
            raise JobError(f"Job {job_id} has ended already: it is {status}.")
        return bool(status != JobStatus.STARTED)

    def depth(self, name: QueueName) -> QueueDepth:
        """How full a queue is. Changes nothing, unlike counting with RQ's registries.

        Raises:
            StoreError: Redis does not answer.
        """
        queue = self.open(name)
        with redis_errors("counting jobs"):
            keys = sorted(get_keys(queue))
            with self.connection.pipeline(transaction=False) as pipe:
                pipe.llen(queue.key)
                pipe.llen(queue.intermediate_queue_key)
                pipe.zcard(queue.started_job_registry.key)
                pipe.zcard(queue.scheduled_job_registry.key)
                pipe.zcard(queue.failed_job_registry.key)
                for key in keys:
                    pipe.hmget(key, ["birth", "death"])
                waiting, popped, running, scheduled, dead, *workers = pipe.execute()
        alive = sum(1 for birth, death in workers if birth and not death)
        return QueueDepth(waiting + popped, running, scheduled, dead, alive)

    def _fetch(self, job_id: str) -> AllowedJob:
        names = {name.value for name in QueueName}
        job = fetch(self.open(QueueName.INGEST), job_id, keep_origin=True)
        if job is None or job.origin not in names:
            raise JobError(
                f"There is no job {job_id[:80]!r}.",
                "It may have ended and been forgotten: results are not kept for ever.",
            )
        return job
