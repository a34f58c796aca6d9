"""Takes webhooks in: on disk before they are acknowledged, then on to the queue."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from backend.errors import CannotTrainError
from backend.intake.changes import TrainingAsked
from backend.intake.drainer import Drainer, DrainOptions
from backend.intake.events import Event, read_event
from backend.intake.recheck import Recheck
from backend.learning.installed import check_training_may_be_asked_for
from backend.metrics import Metrics
from backend.redis_access import open_redis, spool_folder
from backend.settings import Settings
from segzero_ml.errors import SpoolError, SpoolFullError
from training_hooks.spool import Spool, SpoolSurvey, survey

_log = logging.getLogger(__name__)

_THREADS: Final = 16
"""Webhooks that share one fsync, at most; those beyond wait for the next."""

_REMIND_EVERY_S: Final = 60.0


class Intake:
    """The way of a webhook from the call to the queue.

    Args:
        settings: The spool's folder and size, and where Redis is.
        metrics: Where events and refusals are counted.
        options: How the drainer behaves.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, options: DrainOptions | None = None
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._options = options
        self._spool: Spool | None = None
        self._drainer: Drainer | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._reminded_at = float("-inf")

    def open(self) -> None:
        """Open the spool; does nothing if it is open.

        Raises:
            SpoolError: Its folder cannot be used, or another backend uses it.
        """
        if self._spool is None:
            folder = spool_folder(self._settings)
            self._spool = Spool(folder, max_bytes=self._settings.spool_bytes)
            self._metrics.watch_spool(self._is_full)

    def start(self) -> None:
        """Begin to hand over what is in the spool.

        Raises:
            SpoolError: As `open`.
        """
        self.open()
        if self._spool is None or self._drainer is not None:
            return
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="segzero-webhook")
        self._drainer = Drainer(
            self._spool,
            lambda: open_redis(self._settings, "segzero-drainer", retries=1),
            Recheck(self._settings),
            on_unreadable=self._metrics.events_unreadable.inc,
            options=self._options,
        )
        self._drainer.start()

    def stop(self) -> None:
        """Finish the events at hand, hand nothing over any more, and close the spool."""
        if self._pool is not None:
            self._pool.shutdown()
        if self._drainer is not None:
            self._drainer.stop()
        if self._spool is not None:
            self._spool.close()
        self._pool = self._drainer = self._spool = None

    def survey(self) -> SpoolSurvey:
        """How much waits; without reading it all while the spool is open here.

        Raises:
            SpoolError: A file cannot be read.
        """
        spool = self._spool
        return survey(spool_folder(self._settings)) if spool is None else spool.stats()

    async def take(self, body: bytes) -> Event:
        """Keep a webhook; it is on the disk when this returns.

        Events that mean nothing here are counted and not kept.

        Args:
            body: As received.

        Raises:
            BodyError: It is no event.
            CannotTrainError: It asks for a round of training, and nothing would ever run that.
            SpoolFullError: There is no room for it.
            SpoolError: It could not be kept, or the intake does not run.
        """
        if self._pool is None:
            raise SpoolError("Webhooks are not taken: the backend starts or stops.")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._keep, body)

    def _keep(self, body: bytes) -> Event:
        event = read_event(body)
        self._metrics.count_webhook(event.action, is_known=event.changes is not None)
        spool = self._spool
        if event.changes is None:
            return event
        if spool is None:
            raise SpoolError("Webhooks are not taken: the backend starts or stops.")
        if any(isinstance(change, TrainingAsked) for change in event.changes):
            self._check_training()
        try:
            spool.append(body)
        except SpoolError as error:
            self._alarm(error)
            raise
        return event

    def _check_training(self) -> None:
        try:
            check_training_may_be_asked_for(self._settings)
        except CannotTrainError as error:
            # Label Studio may show no more of a refusal than its status.
            _log.error("Start training is refused: %s", error)
            raise

    def _is_full(self) -> bool:
        try:
            return self._spool is not None and self._spool.stats().full
        except SpoolError:  # closed meanwhile, or its disk fails
            return False

    def _alarm(self, error: SpoolError) -> None:
        is_full = isinstance(error, SpoolFullError)
        self._metrics.webhooks_refused.labels(reason="full" if is_full else "disk").inc()
        if time.monotonic() - self._reminded_at > _REMIND_EVERY_S:
            self._reminded_at = time.monotonic()
            _log.error(
                "Webhooks are refused: the next reconcile has to bring back what they told",
                extra={"fields": {"reason": str(error)}},
            )
