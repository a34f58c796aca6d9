"""Which projects must be compared with Label Studio, because an event did not tell enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from backend.reconcile.job import enqueue
from backend.settings import Settings
from segzero_ml.errors import JobError
from training_hooks.queue_jobs import make_job_id
from training_hooks.queues import Queues
from training_hooks.store_reader import CorrectionReader

SETTLE_S: Final = 2.0
"""Wait after the first event: imports send many."""

APART_S: Final = 30.0
"""Between two reconciles of a project that events ask for."""


class Recheck:
    """Remembers projects and asks for their reconcile, each once in a while.

    What it remembers is not kept on disk: at its start the backend reconciles everything.
    Where there is no Label Studio to ask, it remembers nothing. For one thread.

    Args:
        settings: Whether there is a Label Studio to ask, and whose projects "all" means.
        settle_s: As `SETTLE_S`.
        apart_s: As `APART_S`.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        settle_s: float = SETTLE_S,
        apart_s: float = APART_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label_studio = settings.label_studio_name
        self._can_ask = bool(settings.label_studio_url and settings.label_studio_token)
        self._settle_s = settle_s
        self._apart_s = apart_s
        self._clock = clock
        self._due: dict[int | None, float] = {}
        self._asked: dict[int | None, float] = {}
        self._jobs: dict[int, str] = {}

    def note(self, projects: Iterable[int | None]) -> None:
        """Remember projects; None for all there are."""
        now = self._clock()
        for project in projects if self._can_ask else ():
            earliest = self._asked.get(project, float("-inf")) + self._apart_s
            self._due.setdefault(project, max(now + self._settle_s, earliest))

    @property
    def is_due(self) -> bool:
        """Whether a project's time has come."""
        now = self._clock()
        return any(due <= now for due in self._due.values())

    def enqueue_due(self, queues: Queues) -> None:
        """Enqueue the reconciles whose time has come.

        Raises:
            StoreError: Redis does not answer; they stay due.
        """
        now = self._clock()
        for project in [one for one, due in self._due.items() if due <= now]:
            for each in self._meant(project, queues):
                self._enqueue(each, queues)
            del self._due[project]
            self._asked[project] = now

    def _meant(self, project: int | None, queues: Queues) -> list[int]:
        if project is not None:
            return [project]
        known = CorrectionReader(queues.connection).projects()
        return [one.project for one in known if one.label_studio == self._label_studio]

    def _enqueue(self, project: int, queues: Queues) -> None:
        if self._waits(project, queues):
            return  # it will see what has happened until it starts
        revision = time.time_ns()
        enqueue(queues, project, revision)
        self._jobs[project] = make_job_id("reconcile", project, revision=revision)

    def _waits(self, project: int, queues: Queues) -> bool:
        job_id = self._jobs.get(project)
        try:
            return job_id is not None and queues.find(job_id).status in ("queued", "scheduled")
        except JobError:
            return False
