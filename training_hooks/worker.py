"""Runs a worker for as long as its process lives, whatever happens to Redis."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Final

from redis import Redis
from redis.exceptions import RedisError
from rq.exceptions import StopRequested
from rq.utils import get_version

from segzero_ml.errors import ConfigError, StoreError
from training_hooks.guarded_worker import GuardedWorker
from training_hooks.queue_jobs import AllowedJob, bind
from training_hooks.queues import QueueName
from training_hooks.redis_client import OLDEST_VERSION
from training_hooks.worker_options import WorkerOptions

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 10.0
_LASTING_S: Final = 60.0


class _Stop:
    """What SIGTERM and SIGINT change."""

    def __init__(self) -> None:
        self._asked = False
        self.worker: GuardedWorker | None = None

    def requested(self) -> bool:
        return self._asked

    def handle(self, signum: int, frame: FrameType | None) -> None:
        self._asked = True
        if self.worker is not None:
            self.worker.request_stop(signum, frame)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self.handle) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_worker(
    queue: QueueName,
    connection_factory: Callable[[], Redis],
    allowed: Mapping[str, str],
    *,
    options: WorkerOptions | None = None,
    preload: Sequence[str] = (),
    burst: bool = False,
) -> None:
    """Run the jobs of one queue until SIGTERM or SIGINT.

    Call it in the main thread of a process of its own. Each job runs in a child that dies with
    this process. While Redis is away it waits and tries again; a job that runs meanwhile goes
    on and is recorded afterwards. On a signal the running job may go on for
    `options.stop_grace_s`, then it is put back; a second signal ends the grace.

    Args:
        queue: The queue.
        connection_factory: Makes a connection to Redis, with replies as bytes; called again
            after an outage.
        allowed: Name of a function → dotted path: what jobs may call.
        options: Intervals; the defaults suit production.
        preload: Modules to import before the first job, so that not every job's process
            imports them anew. None that starts threads or touches a GPU.
        burst: Return when no job waits.

    Raises:
        ConfigError: The allow-list is malformed, or Redis is too old.
        ImportError: A module to preload is not there.
    """
    job_class = bind(allowed)
    options = options or WorkerOptions()
    for module in preload:
        importlib.import_module(module)
    stop = _Stop()
    quiet_until = 0.0
    pause = _FIRST_PAUSE_S
    with stop.listening():
        while not stop.requested():
            started = time.monotonic()
            problem = _work_once(
                queue, connection_factory, job_class, options, stop, quiet_until, burst=burst
            )
            if stop.requested() or (burst and problem is None):
                break
            if time.monotonic() - started > _LASTING_S:
                pause = _FIRST_PAUSE_S
            _log.warning("Worker of queue %s: %s. Trying again in %.1f s.", queue, problem, pause)
            _wait(pause, stop)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            # Whoever else runs jobs may have lost Redis too, and needs time to say so.
            quiet_until = time.monotonic() + options.abandon_after_s
    _log.info("Worker of queue %s has stopped.", queue)


def _work_once(
    queue: QueueName,
    connection_factory: Callable[[], Redis],
    job_class: type[AllowedJob],
    options: WorkerOptions,
    stop: _Stop,
    quiet_until: float,
    *,
    burst: bool,
) -> str | None:
    """Run one worker until it ends; why it ended, or None if it was to end."""
    connection: Redis | None = None
    try:
        connection = connection_factory()
        _check_version(connection)
        worker = GuardedWorker(
            queue.value, connection, job_class, _name(queue), options, quiet_until
        )
        stop.worker = worker
        try:
            # A signal before this line found no worker to tell.
            if not stop.requested():
                worker.work(burst=burst)
        finally:
            stop.worker = None
            _leave_nothing(worker)
    except StopRequested:
        return None
    except (RedisError, StoreError, OSError) as error:
        return f"{type(error).__name__}: {error}".rstrip(".")
    finally:
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                connection.close()
    return None


def _leave_nothing(worker: GuardedWorker) -> None:
    """Kill a job's process that the worker left running when it ended with an error."""
    if worker.horse_pid:
        worker.kill_horse()
        worker.wait_for_horse()


def _check_version(connection: Redis) -> None:
    version = get_version(connection)
    if version[:2] < OLDEST_VERSION:
        raise ConfigError(
            f"Redis {'.'.join(map(str, version))} is too old: a job could get lost.",
            f"Use Redis {'.'.join(map(str, OLDEST_VERSION))} or newer, or any Valkey.",
        )


def _name(queue: QueueName) -> str:
    """A name that no other worker has, without the characters that Redis does not take."""
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname())[:40]
    return f"{queue}-{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _wait(seconds: float, stop: _Stop) -> None:
    end = time.monotonic() + seconds
    while not stop.requested() and time.monotonic() < end:
        time.sleep(0.1)
