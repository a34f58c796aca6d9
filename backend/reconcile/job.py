"""The job that reconciles a project, in slices: corrections that wait go in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from redis import Redis

from backend.intake.image_facts import ImageLookup
from backend.jobs import ALLOWED
from backend.label_studio import LabelStudio
from backend.reconcile.pages import ImageOf, no_image
from backend.reconcile.projects import open_label_studio
from backend.reconcile.run import Run, Standing
from backend.reconcile.seen import SeenInRedis
from backend.redis_access import open_redis
from backend.settings import Settings, load_settings
from segzero_ml.errors import LabellingConfigError
from training_hooks.queue_jobs import make_job_id
from training_hooks.queues import QueueName, Queues
from training_hooks.running_job import RunningJob
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

QUEUE: Final = QueueName.INGEST
TIMEOUT_S: Final = 3600
SLICE_S: Final = 2.0
"""A job goes on for so long, and then for as long as nothing else waits in its queue."""

_log = logging.getLogger(__name__)


def run(project: int, standing: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Reconcile a project, or go on with that; the entry of the allow-list.

    Args:
        project: Its id.
        standing: How far an earlier job came; None to begin.

    Returns:
        What was found and done, or that another job goes on with it.

    Raises:
        ConfigError: A setting is wrong or missing.
        InputError: The state of an earlier job cannot be read.
        LabelStudioError: Label Studio does not answer; the job may be tried again.
        StoreError: Redis does not answer or is full; the job may be tried again.
    """
    settings = load_settings()
    with open_label_studio(settings) as client:
        job = RunningJob.current()
        redis = open_redis(settings, "segzero-reconcile") if job is None else job.connection
        queues = Queues(redis, ALLOWED)
        deadline = time.monotonic() + SLICE_S

        def gives_way() -> bool:
            return time.monotonic() >= deadline and queues.depth(QUEUE).waiting > 0

        going = resume(project, standing, client, settings, redis, ImageLookup(settings, redis))
        return work(going, queues, gives_way, job)


def resume(
    project: int,
    standing: Mapping[str, Any] | None,
    client: LabelStudio,
    settings: Settings,
    redis: Redis,
    image_of: ImageOf = no_image,
) -> Run:
    """A run from where an earlier job left it, or from the start; see `run`."""
    store = CorrectionStore(redis)
    if standing is None:
        state = Standing.begin(store, ProjectKey(settings.label_studio_name, project))
    else:
        state = Standing.from_json(standing)
    return Run(client, store, settings, state, SeenInRedis(redis, state.run), image_of)


def work(
    going: Run, queues: Queues, gives_way: Callable[[], bool], job: RunningJob | None = None
) -> dict[str, Any]:
    """Go on with a run to its end, or until something else is to be done first.

    Args:
        going: The run.
        queues: Where the job is asked for that goes on with it.
        gives_way: Says whether to stop, asked after every step.
        job: Is told the progress, and asked whether to end for good.
    """
    now = going.standing
    try:
        for step in going.steps():
            if job is not None:
                job.progress(*step)
                job.check()
            if gives_way():
                now.slices += 1
                enqueue(queues, now.project, f"{now.run}-{now.slices}", now.to_json())
                return {"outcome": "another job goes on with it", "project": now.project}
    except LabellingConfigError as error:
        # An organisation's webhook tells of all its projects, whatever they label.
        _log.info("Project %d holds nothing to learn from: %s", now.project, error.message)
        return {"outcome": "not a project of this backend", "project": now.project}
    SeenInRedis(queues.connection, now.run).forget()
    result = going.result()
    if not result.is_complete:
        _log.warning(
            "Label Studio's list of project %d contradicts itself; nothing was removed. "
            "The next reconcile tries again.",
            now.project,
        )
    return {"outcome": "done", **result.to_json()}


def enqueue(
    queues: Queues,
    project: int,
    revision: str | int,
    standing: Mapping[str, Any] | None = None,
) -> bool:
    """Ask for the reconcile of a project.

    Args:
        queues: The queues.
        project: Id of the project.
        revision: Of several requests with the same one, only the first counts.
        standing: How far an earlier job came; None to begin.

    Returns:
        Whether this one counts.

    Raises:
        StoreError: Redis does not answer or has no room.
    """
    kwargs: dict[str, Any] = {"project": project}
    if standing is not None:
        kwargs["standing"] = dict(standing)
    job_id = make_job_id("reconcile", project, revision=revision)
    return queues.enqueue(QUEUE, "reconcile", job_id, kwargs, timeout_s=TIMEOUT_S)
