"""The train jobs of projects: one at a time for each, however many ask for it.

Redis keys: `segzero:train:{project}`, a string, the number of the project's newest train job.
No expiry. A job's id holds its number, so that all who ask at the same time ask for the same
job; the next number is given out only when that job has ended.
"""

from __future__ import annotations

from typing import Any, Final

from redis.client import Pipeline

from backend.learning.folders import loop_name
from backend.settings import Settings
from segzero_ml.errors import JobError
from training_hooks.queue_jobs import make_job_id
from training_hooks.queues import JobView, QueueName, Queues
from training_hooks.redis_client import redis_errors

QUEUE: Final = QueueName.TRAIN
_WAITS_OR_RUNS: Final = frozenset({"queued", "started", "scheduled", "deferred"})


def newest_job(queues: Queues, settings: Settings, project: int) -> JobView | None:
    """A project's newest train job; None where there was none, or it is forgotten.

    Raises:
        StoreError: Redis does not answer.
    """
    name = loop_name(settings, project)
    number = _number(queues, name)
    return None if number < 1 else _find(queues, _job_id(name, number))


def is_alive(job: JobView | None) -> bool:
    """Whether a job waits or runs."""
    return job is not None and job.status in _WAITS_OR_RUNS


def enqueue(
    queues: Queues, settings: Settings, project: int, *, by_hand: bool = False
) -> str | None:
    """Ask for a round of training, unless the project's newest one waits or runs.

    Args:
        queues: The queues.
        settings: The name of this Label Studio.
        project: Which project.
        by_hand: Whether a person asked: then the job does not ask the policy again.

    Returns:
        The job's id; None where there is one already.

    Raises:
        StoreError: Redis does not answer or has no room.
    """
    name = loop_name(settings, project)
    number = _number(queues, name)
    if number > 0 and is_alive(_find(queues, _job_id(name, number))):
        return None
    job_id = _job_id(name, number + 1)
    kwargs: dict[str, Any] = {"project": project, "by_hand": by_hand}
    added = queues.enqueue(QUEUE, "train", job_id, kwargs)
    _raise_to(queues, name, number + 1)
    return job_id if added else None


def _find(queues: Queues, job_id: str) -> JobView | None:
    try:
        return queues.find(job_id)
    except JobError:
        return None


def _job_id(name: str, number: int) -> str:
    return make_job_id("train", name, revision=number)


def _key(name: str) -> str:
    return f"segzero:train:{name}"


def _number(queues: Queues, name: str) -> int:
    with redis_errors("being asked about training"):
        found: Any = queues.connection.get(_key(name))
    return int(found) if found and found.isdigit() else 0


def _raise_to(queues: Queues, name: str, number: int) -> None:
    key = _key(name)

    def step(pipe: Pipeline) -> None:
        found: Any = pipe.get(key)
        pipe.multi()
        if not found or not found.isdigit() or int(found) < number:
            pipe.set(key, number)

    with redis_errors("noting a train job"):
        queues.connection.transaction(step, key)
