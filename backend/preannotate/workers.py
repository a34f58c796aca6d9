"""Workers that a command brings along and takes away again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from redis import Redis

from backend.jobs import ALLOWED
from backend.preannotate.plan import QUEUE
from backend.settings import Settings
from backend.supervisor.plan import child_environment, command
from training_hooks import processes
from training_hooks.queues import Queues

DEFAULT: Final = 2
"""One writes to Label Studio while the other has the model."""

_GRACE_S: Final = 30.0


@contextmanager
def started(settings: Settings, redis: Redis, wanted: int | None) -> Iterator[None]:
    """Run workers of the queue `predict` for the time of the `with`.

    Jobs that run at its end get half a minute to finish, and are put back otherwise.

    Args:
        settings: The workers get the same.
        redis: Says how many run already.
        wanted: How many to start; None for two if none runs, else none.
    """
    if wanted is None:
        wanted = 0 if Queues(redis, ALLOWED).depth(QUEUE).workers else DEFAULT
    env = child_environment(settings, os.environ)
    with ExitStack() as stack:
        for _ in range(wanted):
            worker = processes.start(
                command("worker", QUEUE.value),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(processes.stop, worker, _GRACE_S)
        yield
