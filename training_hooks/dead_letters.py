"""Jobs that failed for good: why, and how to try them again.

A dead letter is a job in RQ's registry of failed jobs. It got there because its tries were
used up, its worker died once too often, or it was refused. Refused ones stay dead until the
allow-list has their function.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ResponseError
from rq import Queue
from rq.results import Result

from segzero_ml.errors import JobError
from training_hooks.failures import reason_line
from training_hooks.job_errors import JobRefusedError
from training_hooks.queue_jobs import AllowedJob, fetch, is_job_id
from training_hooks.queue_moves import bury_unreadable, transact
from training_hooks.queue_rescue import as_text
from training_hooks.queues import POLICIES, QueueName, QueuePolicy, Queues
from training_hooks.redis_client import redis_errors
from training_hooks.running_job import forget_request

_LONGEST_SUMMARY: Final = 12
"""Lines of a summary that are shown."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that failed for good.

    Attributes:
        job_id: Its id.
        queue: Its queue.
        function: The name of its function; `?` if unreadable.
        reason: Why, in one line without secrets.
        at: When it failed.
        summary: The reason and where in the code it arose, several lines.
        can_retry: Whether it may be tried again: it was not refused.
    """

    job_id: str
    queue: QueueName
    function: str
    reason: str
    at: datetime
    summary: str
    can_retry: bool


def no_such_job(job_id: str) -> JobError:
    """What to raise where no failed job has that id."""
    return JobError(
        f"There is no failed job {job_id[:80]!r}.", "segzero status lists those there are."
    )


class DeadLetters:
    """The dead letters of all queues on one Redis.

    Args:
        connection: Redis; replies must be bytes.
        allowed: Name of a function → dotted path: what jobs may call.
        policies: How often a job is tried after it was brought back, by queue.

    Raises:
        ConfigError: The allow-list is malformed.
    """

    def __init__(
        self,
        connection: Redis,
        allowed: Mapping[str, str],
        policies: Mapping[QueueName, QueuePolicy] = POLICIES,
    ) -> None:
        self._queues = Queues(connection, allowed, policies)

    def count(self) -> dict[QueueName, int]:
        """How many there are, by queue.

        Raises:
            StoreError: Redis does not answer.
        """
        with redis_errors("counting dead letters"):
            return {
                name: self._queues.connection.zcard(self._queues.open(name).failed_job_registry.key)
                for name in QueueName
            }

    def list(self, limit: int = 100, queue: QueueName | None = None) -> list[DeadLetter]:
        """The newest ones, newest first.

        Args:
            limit: How many, at most.
            queue: Only those of this queue.

        Raises:
            StoreError: Redis does not answer.
        """
        names = list(QueueName) if queue is None else [queue]
        letters: list[DeadLetter] = []
        with redis_errors("listing dead letters"):
            for name in names:
                opened = self._queues.open(name)
                for job_id in _newest(opened, limit):
                    letter = self._letter(name, opened, job_id)
                    if letter is not None:
                        letters.append(letter)
        return sorted(letters, key=lambda letter: letter.at, reverse=True)[:limit]

    def retry(self, job_id: str | None = None) -> int:
        """Bring a dead letter back to its queue, with all its tries; or all of them.

        Args:
            job_id: Which one; None for all that were not refused.

        Returns:
            How many were brought back.

        Raises:
            JobError: There is no such dead letter.
            JobRefusedError: It was refused, and still would be.
            StoreError: Redis does not answer.
        """
        with redis_errors("bringing dead letters back"):
            if job_id is not None:
                self._retry_one(job_id)
                return 1
            count = 0
            for name in QueueName:
                queue = self._queues.open(name)
                for each in reversed(_newest(queue, None)):
                    job = _read(queue, each)
                    if job is not None and job.refusal() is None:
                        count += self._bring_back(name, queue, job)
            return count

    def _retry_one(self, job_id: str) -> None:
        for name in QueueName:
            queue = self._queues.open(name)
            if self._queues.connection.zscore(queue.failed_job_registry.key, job_id) is None:
                continue
            job = _read(queue, job_id)
            if job is None:
                break
            refusal = job.refusal()
            if refusal is not None:
                raise JobRefusedError(
                    f"Job {job_id} cannot be tried again. {refusal}", job_id=job_id
                )
            if self._bring_back(name, queue, job):
                return
        raise no_such_job(job_id)

    def _bring_back(self, name: QueueName, queue: Queue, job: AllowedJob) -> bool:
        failed = queue.failed_job_registry.key
        tries = self._queues.policies[name].retry_after_s

        def step(pipe: Pipeline) -> bool:
            there = pipe.zscore(failed, job.id) is not None
            pipe.multi()
            if there:
                pipe.zrem(failed, job.id)
                job.started_at = job.ended_at = None
                job.retries_left, job.retry_intervals = len(tries), list(tries) or None
                queue.enqueue_job(job, pipeline=pipe)
                pipe.persist(job.key)
            return there

        forget_request(job.id, self._queues.connection)
        return bool(transact(queue, step, failed))

    def _letter(self, name: QueueName, queue: Queue, job_id: str) -> DeadLetter | None:
        job = _read(queue, job_id)
        if job is None:
            # Its data is gone: nothing to show and nothing to try again.
            queue.connection.zrem(queue.failed_job_registry.key, job_id)
            return None
        at, summary = _failure(job)
        return DeadLetter(
            job_id=job.id,
            queue=name,
            function=job.shown_function,
            reason=summary.partition("\n")[0],
            at=at,
            summary=summary,
            can_retry=job.refusal() is None,
        )


def _newest(queue: Queue, limit: int | None) -> list[str]:
    """Ids of dead letters, newest first: all are kept equally long, so expiry orders them."""
    if limit is not None and limit < 1:
        return []
    last = -1 if limit is None else limit - 1
    ids: Any = queue.connection.zrevrange(queue.failed_job_registry.key, 0, last)
    return [as_text(job_id) for job_id in ids]


def _read(queue: Queue, job_id: str) -> AllowedJob | None:
    try:
        return fetch(queue, job_id)
    except JobRefusedError as error:
        bury_unreadable(queue, job_id, error.message)
        # An impossible id is buried under another one.
        return fetch(queue, job_id) if is_job_id(job_id) else None


def _failure(job: AllowedJob) -> tuple[datetime, str]:
    """When the job failed and why, from the newest entry of its results."""
    nothing = job.ended_at or datetime.now(UTC), "The reason was not recorded."
    try:
        result = job.latest_result()
    except (ValueError, TypeError, LookupError, zlib.error, ResponseError):
        return nothing
    if result is None or result.type is not Result.Type.FAILED or not result.exc_string:
        return nothing
    # Others can write to Redis as well: no control characters for the terminal.
    summary = [reason_line(line) for line in result.exc_string.splitlines()[:_LONGEST_SUMMARY]]
    return result.created_at, "\n".join([*summary[:1], *(f"  {line}" for line in summary[1:])])
