"""The job that brings changes in Label Studio into the store. Safe to repeat, in any order."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from redis import Redis

from backend.annotations import ImageFacts, find_prediction
from backend.intake.changes import (
    AnnotationsGone,
    Job,
    Saved,
    SavedElsewhere,
    TasksGone,
    TrainingAsked,
    unpack,
)
from backend.intake.handover import Order, order
from backend.intake.image_facts import ImageLookup
from backend.intake.send import send
from backend.intake.studio import Studio
from backend.intake.write import write_annotation
from backend.jobs import ALLOWED
from backend.labelling import Labelling, parse_config
from backend.learning.trigger import consider_soon
from backend.redis_access import open_redis
from backend.settings import Settings, load_settings
from segzero_ml.errors import InputError, LabellingConfigError
from training_hooks.loop_reader import START_TRAINING
from training_hooks.queue_jobs import make_job_id
from training_hooks.queues import Queues
from training_hooks.running_job import RunningJob
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

_log = logging.getLogger(__name__)

ImageOf = Callable[[Mapping[str, Any], Labelling], ImageFacts | None]


def run(changes: Sequence[str]) -> dict[str, Any]:
    """Bring changes into the store; the entry of the allow-list.

    A job that failed before comes apart: each of its changes gets a job of its own, so that
    one that cannot be stored does not keep back the others.

    Args:
        changes: As `backend.intake.changes.pack` wrote them.

    Returns:
        What came of them, for whoever looks at the job: how many were created, updated...

    Raises:
        ConfigError: A setting is wrong or missing.
        InputError: A change cannot be read; it will not get better by itself.
        LabelStudioError: Label Studio does not answer; the job may be tried again.
        StoreError: Redis does not answer or is full; the job may be tried again.
    """
    settings = load_settings()
    job = RunningJob.current()
    redis = open_redis(settings, "segzero-ingest") if job is None else job.connection
    if job is not None and job.has_failed_before and len(changes) > 1:
        queues = Queues(redis, ALLOWED)
        for text in changes:
            send(queues, [_order_again(text, job.job_id)])
        return {"taken apart": len(changes)}
    image_of = ImageLookup(settings, redis)
    outcomes: Counter[str] = Counter()
    touched: set[int] = set()
    with Studio(settings) as studio:
        for text in changes:
            try:
                change = unpack(text)
                outcomes[ingest(change, settings, redis, studio, image_of)] += 1
            except InputError:
                if job is not None and len(changes) == 1:
                    job.forgo_tries()
                raise
            if change.project is not None and not isinstance(change, AnnotationsGone | TasksGone):
                touched.add(change.project)
    consider_soon(redis, settings, touched)
    return dict(outcomes)


def _order_again(text: str, occasion: str) -> Order:
    try:
        return order(unpack(text), occasion)
    except InputError:  # its own job will say so
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Order(make_job_id("unreadable", revision=digest), text)


def ingest(change: Job, settings: Settings, redis: Redis, studio: Studio, image_of: ImageOf) -> str:
    """Bring one change into the store.

    Args:
        change: What happened.
        settings: The name of this Label Studio, and the fields that hold requests.
        redis: Where the store is.
        studio: Is asked for what the change does not hold.
        image_of: Looks up images.

    Returns:
        What came of it, in a word or two.

    Raises:
        As `run`.
    """
    store = CorrectionStore(redis)
    if isinstance(change, Saved):
        return _saved(change, settings, store, studio, image_of)
    if isinstance(change, SavedElsewhere):
        found = _look_up(change, studio)
        if found is None:
            return "gone"
        return _saved(found, settings, store, studio, image_of)
    if isinstance(change, TrainingAsked):
        project = ProjectKey(settings.label_studio_name, change.project)
        store.set_watermark(project, START_TRAINING, datetime.fromisoformat(change.at))
        return "noted"
    _remove(change, settings, store)
    return "removed"


def _saved(
    change: Saved,
    settings: Settings,
    store: CorrectionStore,
    studio: Studio,
    image_of: ImageOf,
) -> str:
    config = change.label_config
    if config is None:
        config = studio.label_config(change.project)
    try:
        labelling = parse_config(config)
    except LabellingConfigError as error:
        # An organisation's webhook tells of all its projects, whatever they label.
        _log.info("Project %d holds nothing to learn from: %s", change.project, error.message)
        return "not a project of this backend"
    annotation = {**change.annotation, "project": change.project}
    prediction, image = None, None
    if not annotation.get("was_cancelled"):
        if annotation.get("parent_prediction") or annotation.get("result"):
            predictions = studio.predictions(int(change.task["id"]))
            prediction = find_prediction(annotation, predictions)
        image = image_of(change.task, labelling)
    outcome = write_annotation(
        store, annotation, change.task, prediction, labelling, settings, image
    )
    return outcome.value


def _look_up(change: SavedElsewhere, studio: Studio) -> Saved | None:
    """The annotation as Label Studio has it; None if it has it no more.

    Then its deletion is told of elsewhere: nothing is concluded from its absence here.
    """
    task = studio.task(change.project, change.task)
    annotations = () if task is None else task["annotations"]
    for annotation in annotations:
        if task is not None and annotation.get("id") == change.annotation:
            return Saved(change.project, annotation, task, studio.label_config(change.project))
    return None


def _remove(
    change: AnnotationsGone | TasksGone, settings: Settings, store: CorrectionStore
) -> None:
    """Remove what was deleted.

    Ids of tasks and annotations are used once in a Label Studio: where the event names no
    project, they are struck out in all of them.
    """
    if change.project is not None:
        projects = [ProjectKey(settings.label_studio_name, change.project)]
    else:
        ours = settings.label_studio_name
        projects = [one for one in store.projects() if one.label_studio == ours]
    for project in projects:
        if isinstance(change, TasksGone):
            for task in change.tasks:
                store.delete_task(project, task)
        else:
            for annotation in change.annotations:
                store.delete(project.annotation(annotation))
