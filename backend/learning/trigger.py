"""Asks the policy whether a project's round is due, and asks for the round if so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from redis import Redis

from backend.jobs import ALLOWED
from backend.learning.cancel import settle_dead
from backend.learning.facts import gather, local_now, policy_options
from backend.learning.folders import loop_name
from backend.learning.train_queue import enqueue, is_alive, newest_job
from backend.redis_access import open_redis
from backend.settings import Settings
from segzero_ml.errors import SegZeroError
from training_hooks.loop_reader import LoopReader
from training_hooks.policy import Decision, decide
from training_hooks.queues import Queues
from training_hooks.redis_client import redis_errors
from training_hooks.store_values import ProjectKey

_log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 30.0
"""Seconds between two looks at all projects: what ages, or is scheduled, waits no longer."""

_AGAIN_MS: Final = 2000
"""Milliseconds in which one of many ingest jobs looks at a project."""
_STOP_S: Final = 2.0
_NOT_LOOKED: Final = "Not looked whether project %d is to be trained: %s"


def look(
    redis: Redis, settings: Settings, project: int, *, by_hand: bool = False
) -> tuple[Decision, str | None]:
    """Decide whether a project's round is due; nothing is changed.

    Args:
        redis: Redis.
        settings: When rounds are due.
        project: Which project.
        by_hand: Whether a person asks right now.

    Returns:
        The decision, and the id of the job that waits or runs, if one does.

    Raises:
        StoreError: Redis does not answer.
    """
    job = newest_job(Queues(redis, ALLOWED), settings, project)
    running = is_alive(job)
    key = ProjectKey(settings.label_studio_name, project)
    options = policy_options(settings)
    facts = gather(LoopReader(redis), key, options, running=running, by_hand=by_hand)
    alive = job.job_id if job is not None and running else None
    return decide(facts, options, local_now()), alive


def consider(redis: Redis, settings: Settings, project: int) -> str | None:
    """Ask for a project's round if it is due.

    Returns:
        The id of the new job, or None.

    Raises:
        StoreError: Redis does not answer or has no room.
    """
    settle_dead(Queues(redis, ALLOWED), settings, project)
    decision, _ = look(redis, settings, project)
    if not decision.train:
        return None
    job_id = enqueue(Queues(redis, ALLOWED), settings, project)
    if job_id is not None:
        _log.info("Asked for a round of project %d: %s", project, " ".join(decision.reasons))
    return job_id


def consider_soon(redis: Redis, settings: Settings, projects: Iterable[int]) -> None:
    """The same after corrections came in: of many jobs in a row one looks, the rest do not.

    Whatever fails is said and left: the next look at all projects comes soon.
    """
    for project in projects:
        try:
            key = f"segzero:considered:{loop_name(settings, project)}"
            with redis_errors("being asked about training"):
                is_first = redis.set(key, 1, nx=True, px=_AGAIN_MS)
            if is_first:
                consider(redis, settings, project)
        except SegZeroError as error:
            _log.warning(_NOT_LOOKED, project, error)


class Triggers:
    """A thread that looks at all projects every so often; several backends may.

    Args:
        settings: When rounds are due, and where Redis is.
        connect: Opens Redis.
        every_s: Seconds between two looks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connect: Callable[[Settings], Redis] = open_redis,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._every_s = every_s
        self._told: frozenset[int] = frozenset()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="triggers", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a question to Redis that is under way may outlive this by its time limit."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def look_at_all(self) -> tuple[str, ...]:
        """Look at every project now; what fails with one is said once, and keeps none waiting.

        Returns:
            Ids of the new jobs.

        Raises:
            SegZeroError: Redis is away.
        """
        settings = self._settings
        jobs: list[str | None] = []
        failed: set[int] = set()
        with self._connect(settings) as redis:
            ours = settings.label_studio_name
            projects = [
                one.project for one in LoopReader(redis).projects() if one.label_studio == ours
            ]
            for project in projects:
                try:
                    jobs.append(consider(redis, settings, project))
                except SegZeroError as error:
                    failed.add(project)
                    level = logging.DEBUG if project in self._told else logging.WARNING
                    _log.log(level, _NOT_LOOKED, project, error)
        self._told = frozenset(failed)
        return tuple(job for job in jobs if job is not None)

    def _work(self) -> None:
        told = False
        while not self._stop.wait(self._every_s):
            try:
                self.look_at_all()
            except SegZeroError as error:
                if not told:
                    _log.warning("Cannot look whether a project is to be trained: %s", error)
                told = True
            except Exception:  # noqa: BLE001 - logged; without this thread no round starts any more
                _log.exception("A look whether a project is to be trained broke off")
            else:
                told = False
