"""Ends a project's round on request, and records the end of one whose job died."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from redis import Redis

from backend.learning.folders import loop_name
from backend.learning.round_state import Phase, read_state, write_state
from backend.learning.train_queue import is_alive, newest_job
from backend.settings import Settings
from segzero_ml.errors import JobError
from training_hooks.loop_reader import note_end
from training_hooks.queues import Queues
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey


def cancel_round(queues: Queues, settings: Settings, project: int) -> bool:
    """End the round of a project that waits or runs.

    Args:
        queues: The queues.
        settings: The name of this Label Studio.
        project: Which project.

    Returns:
        True if it is ended; False if it runs and was asked to end.

    Raises:
        JobError: None waits or runs.
        StoreError: Redis does not answer.
    """
    job = newest_job(queues, settings, project)
    if job is None or not is_alive(job):
        raise JobError(
            f"No round of project {project} waits or runs.",
            "segzero status shows how the last one ended.",
        )
    ended = queues.cancel(job.job_id)
    if ended:  # it may have begun, failed and waited for its next try, which comes no more
        text = "The round was cancelled before its next try."
        _end(queues.connection, settings, project, Phase.CANCELLED, text)
    return ended


def settle_dead(queues: Queues, settings: Settings, project: int) -> bool:
    """Record the end of a round whose job is over without having been able to say so.

    Its process was killed at the last try, or failed in a way that nobody foresaw.

    Args:
        queues: The queues.
        settings: The name of this Label Studio.
        project: Which project.

    Returns:
        Whether there was such a round.

    Raises:
        StoreError: Redis does not answer.
    """
    state = read_state(queues.connection, loop_name(settings, project))
    if state is None or state.phase.is_over:
        return False
    try:
        job = queues.find(state.job)
    except JobError:
        job = None
    if is_alive(job):
        return False
    reason = None if job is None else job.last_failure
    text = f"Its job died at its last try. {reason or ''}".strip()
    return _end(queues.connection, settings, project, Phase.FAILED, text)


def _end(redis: Redis, settings: Settings, project: int, phase: Phase, text: str) -> bool:
    name = loop_name(settings, project)
    state = read_state(redis, name)
    if state is None or state.phase.is_over:
        return False
    at = datetime.now(UTC)
    key = ProjectKey(settings.label_studio_name, project)
    note_end(CorrectionStore(redis), key, at, mark=None)
    write_state(redis, name, replace(state, phase=phase, ended_at=at.isoformat(), text=text))
    return True
