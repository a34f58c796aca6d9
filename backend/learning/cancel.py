"""Ends a project's round on request."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

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
    redis, name = queues.connection, loop_name(settings, project)
    state = read_state(redis, name)
    if ended and state is not None and state.job == job.job_id and not state.phase.is_over:
        # It had begun, failed and waited for its next try, which comes no more.
        at = datetime.now(UTC)
        key = ProjectKey(settings.label_studio_name, project)
        note_end(CorrectionStore(redis), key, at, watermark=None)
        over = replace(
            state,
            phase=Phase.CANCELLED,
            ended_at=at.isoformat(),
            text="The round was cancelled before its next try.",
        )
        write_state(redis, name, over)
    return ended
