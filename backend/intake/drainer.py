"""Hands over what is in the spool to the queue, for as long as the backend runs.

A record is acknowledged only when its jobs are in Redis, and on its disk where Redis can tell.
While Redis is away, full, or has too much waiting, records stay in the spool and are tried
again; a record that comes twice makes no second job.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from redis import Redis

from backend.intake.handover import Order, plan
from backend.intake.recheck import Recheck
from backend.intake.send import send
from backend.jobs import ALLOWED
from segzero_ml.errors import ConfigError, QueueError
from training_hooks.failures import summarise
from training_hooks.queues import QueueName, Queues
from training_hooks.redis_client import wait_until_on_disk
from training_hooks.spool import Record, Spool

_log = logging.getLogger(__name__)

_RECORDS: Final = 1000
"""Records that are handed over before Redis is asked whether its disk has them."""


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """How a drainer behaves.

    Args:
        first_pause_s: Wait after Redis failed for the first time; doubled each time.
        longest_pause_s: Longest such wait.
        disk_wait_s: Longest wait for Redis's disk.
        most_waiting: Jobs that may wait in the queue; more stay in the spool, on the disk.
    """

    first_pause_s: float = 0.2
    longest_pause_s: float = 5.0
    disk_wait_s: float = 3.0
    most_waiting: int = 5000


class Drainer:
    """A thread that empties a spool into the queue `ingest`.

    Args:
        spool: Open; closed by its owner, after `stop`.
        connect: Makes a client of Redis; called again after each failure. Raises ConfigError
            where there is no Redis yet.
        recheck: Is told of projects that must be compared with Label Studio.
        on_unreadable: Called for each record that is no event.
        options: Waits.
    """

    def __init__(
        self,
        spool: Spool,
        connect: Callable[[], Redis],
        recheck: Recheck,
        *,
        on_unreadable: Callable[[], None] = lambda: None,
        options: DrainOptions | None = None,
    ) -> None:
        self._spool = spool
        self._connect = connect
        self._recheck = recheck
        self._on_unreadable = on_unreadable
        self._options = options or DrainOptions()
        self._redis: Redis | None = None
        self._failed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="segzero-drainer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """End after the step at hand; what is left in the spool is for the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _run(self) -> None:
        pause = self._options.first_pause_s
        while not self._stop.is_set():
            try:
                self._step()
            except (QueueError, ConfigError) as error:
                self._fail(str(error))
            except Exception as error:  # noqa: BLE001 - logged; whatever it is, others must go on
                self._fail(summarise(error))
            else:
                self._recover()
                pause = self._options.first_pause_s
                continue
            self._stop.wait(pause)
            pause = min(2 * pause, self._options.longest_pause_s)
        self._disconnect()

    def _step(self) -> None:
        """Hand over what is there; wait a second for something if there is nothing."""
        has_records = self._spool.wait(timeout_s=1.0)
        if self._stop.is_set() or not (has_records or self._recheck.is_due):
            return
        if self._redis is None:
            self._redis = self._connect()
        queues = Queues(self._redis, ALLOWED)
        self._recheck.enqueue_due(queues)
        if not has_records:
            return
        if queues.depth(QueueName.INGEST).waiting >= self._options.most_waiting:
            self._stop.wait(1.0)
            return
        records = self._spool.read(limit=_RECORDS)
        self._hand_over(records, queues)
        # False where the server cannot tell; then a reconcile at the next start has to do.
        wait_until_on_disk(self._redis, self._options.disk_wait_s)
        self._spool.acknowledge(records[-1].seq)

    def _hand_over(self, records: Sequence[Record], queues: Queues) -> None:
        send(queues, [order for record in records for order in self._orders(record)])

    def _orders(self, record: Record) -> tuple[Order, ...]:
        """What a record tells; nothing of one that cannot be read, which must not stop the rest."""
        try:
            planned = plan(record)
        except Exception as error:  # noqa: BLE001 - counted and logged
            self._on_unreadable()
            _log.error(
                "A webhook in the spool cannot be read and is left out",
                extra={"fields": {"record": record.seq, "reason": summarise(error)}},
            )
            return ()
        self._recheck.note(planned.unsure)
        return planned.orders

    def _fail(self, reason: str) -> None:
        self._disconnect()
        if not self._failed:
            self._failed = True
            _log.warning(
                "Webhooks stay in the spool until they can be handed over",
                extra={"fields": {"reason": reason}},
            )

    def _recover(self) -> None:
        if self._failed and self._redis is not None:
            self._failed = False
            _log.info("Webhooks are handed over again")

    def _disconnect(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            redis.close()
