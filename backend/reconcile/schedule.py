"""Asks for the reconcile of every project that matters: at start, and every so often."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from redis import Redis

from backend.jobs import ALLOWED
from backend.label_studio import LabelStudio
from backend.reconcile.job import enqueue
from backend.reconcile.projects import find_projects, open_label_studio, remember_gone
from backend.redis_access import open_redis
from backend.settings import Settings
from segzero_ml.errors import SegZeroError
from training_hooks.queues import Queues
from training_hooks.store import CorrectionStore

_log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 10.0
_FIRST_PAUSE_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 60.0
_START_S: Final = 30
"""Backends that start within so many seconds ask for the same reconcile."""
_STOP_S: Final = 2.0


class Schedule:
    """A thread that asks for reconciles; several backends ask for the same ones.

    Where Redis or Label Studio is away it tries again, and says so once.

    Args:
        settings: Where Label Studio and Redis are, and how often.
        open_client: Opens Label Studio, with the longest wait for an answer.
        connect: Opens Redis.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        open_client: Callable[[Settings, float], LabelStudio] = open_label_studio,
        connect: Callable[[Settings], Redis] = open_redis,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._open = open_client
        self._connect = connect
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._gone: frozenset[int] = frozenset()

    def start(self) -> None:
        """Begin; does nothing where there is no Label Studio to ask, or no wish to."""
        settings = self._settings
        if not settings.reconcile_every_s:
            _log.info("Corrections are compared with Label Studio by segzero sync only.")
        elif settings.label_studio_url is None or settings.label_studio_token is None:
            _log.warning(
                "Corrections that webhooks miss are not made good: set "
                "SEGZERO_LABEL_STUDIO_URL and SEGZERO_LABEL_STUDIO_TOKEN."
            )
        else:
            self._thread = threading.Thread(target=self._work, name="reconciles", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End; a call that is under way may outlive this by its time limit."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def ask(self, revision: str) -> tuple[int, ...]:
        """Ask for the reconcile of every project that matters.

        These are the ones the store knows and those with a webhook of this backend, as far as
        Label Studio has them. Of those that it has no more it is noted that they are gone.

        Args:
            revision: Of several requests with the same one, only the first counts.

        Returns:
            Ids of the projects.

        Raises:
            SegZeroError: Redis or Label Studio is away.
        """
        settings = self._settings
        with self._connect(settings) as redis, self._open(settings, _TIMEOUT_S) as client:
            store = CorrectionStore(redis)
            projects = find_projects(client, store, settings)
            remember_gone(store, settings, projects)
            queues = Queues(redis, ALLOWED)
            for project in projects.wanted:
                enqueue(queues, project, revision)
        self._tell_gone(frozenset(projects.gone))
        return projects.wanted

    def _work(self) -> None:
        every = self._settings.reconcile_every_s
        revision = f"start-{int(self._clock() // _START_S)}"
        while not self._stop.is_set():
            self._ask_until_heard(revision)
            # All backends wait for the same moments, so that their requests are the same.
            self._stop.wait(every - self._clock() % every)
            revision = f"{every:g}-{round(self._clock() / every)}"

    def _ask_until_heard(self, revision: str) -> None:
        pause, told = _FIRST_PAUSE_S, False
        while not self._stop.is_set():
            try:
                projects = self.ask(revision)
            except SegZeroError as error:
                if not told:
                    _log.warning("Cannot ask for reconciles, trying again: %s", error)
                told = True
            else:
                _log.debug("Asked for reconciles of projects %s", projects)
                if told:
                    _log.info("Reconciles are asked for again.")
                return
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _tell_gone(self, gone: frozenset[int]) -> None:
        for project in sorted(gone - self._gone):
            _log.warning(
                "Project %d is gone from Label Studio, or hidden from the token's user; its "
                "corrections stay, and nothing is trained for it.",
                project,
            )
        self._gone = gone
