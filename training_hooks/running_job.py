"""What a job can do while it runs: tell its progress, and notice that it should end.

RQ's own way to stop a job is a message that may get lost and a SIGKILL. Here whoever wants a
job to end sets a flag in Redis, and the job looks at it.

Redis keys: `segzero:cancel:{job}`, a string, `1`; expires after a day.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from redis import Redis
from redis.exceptions import RedisError
from rq import get_current_job
from rq.job import Job

from training_hooks.failures import reason_line
from training_hooks.job_errors import JobCancelledError

_log = logging.getLogger(__name__)

_SAVE_EVERY_S: Final = 0.5
_LOOK_EVERY_S: Final = 1.0
_FLAG_TTL_S: Final = 24 * 3600


class RunningJob:
    """The job that this process is running.

    Neither method fails when Redis is away: progress is not worth a lost training.

    Args:
        job: RQ's job.
        clock: Monotonic seconds.
    """

    def __init__(self, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._clock = clock
        self._saved_at = self._looked_at = float("-inf")
        self._cancelled = False

    @classmethod
    def current(cls) -> RunningJob | None:
        """The job this code runs in; None outside of a worker."""
        job = get_current_job()
        return None if job is None else cls(job)

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._job.id

    @property
    def connection(self) -> Redis:
        """The worker's connection to Redis."""
        return self._job.connection

    @property
    def has_failed_before(self) -> bool:
        """Whether an earlier try of this job failed, or died with its process."""
        return "last_failure" in self._job.meta

    @property
    def is_last_try(self) -> bool:
        """Whether the job becomes a dead letter if it fails now."""
        return not self._job.retries_left

    def forgo_tries(self) -> None:
        """Have the job buried at once if it fails now: trying again would not help."""
        self._job.retries_left = 0

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Say how far the job is. Written twice a second at most, and at the end.

        Args:
            done: How much is done, in any unit.
            total: How much there is to do, in the same unit.
            note: What is being done, a few words.
        """
        now = self._clock()
        if now - self._saved_at < _SAVE_EVERY_S and done < total:
            return
        self._saved_at = now
        self._job.meta["progress"] = {
            "done": done,
            "total": total,
            "note": reason_line(note),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            self._job.save_meta()  # type: ignore[no-untyped-call]
        except RedisError as error:
            _log.warning("Progress of job %s not written: %s", self.job_id, type(error).__name__)

    def cancelled(self) -> bool:
        """Whether somebody asked the job to end. Looked up once a second at most."""
        now = self._clock()
        if not self._cancelled and now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            try:
                self._cancelled = bool(self.connection.exists(_flag(self.job_id)))
            except RedisError as error:
                _log.warning("Cannot see whether job %s should end: %s", self.job_id, error)
        return self._cancelled

    def check(self) -> None:
        """End the job here if somebody asked for it.

        Raises:
            JobCancelledError: Somebody did. Let it pass through: the worker records it.
        """
        if self.cancelled():
            raise JobCancelledError("The job was cancelled.")


def ask_to_end(job_id: str, connection: Redis) -> None:
    """Set the flag that a running job looks at."""
    connection.set(_flag(job_id), 1, ex=_FLAG_TTL_S)


def is_asked_to_end(job_id: str, connection: Redis) -> bool:
    """Whether the flag is set."""
    return bool(connection.exists(_flag(job_id)))


def forget_request(job_id: str, connection: Redis) -> None:
    """Take the flag away, so that a later run of the same job is not ended by it."""
    connection.delete(_flag(job_id))


def _flag(job_id: str) -> str:
    return f"segzero:cancel:{job_id}"
