"""The embedded Redis as something that is kept running."""

from __future__ import annotations

import contextlib
import os
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from backend.supervisor.service import Ending
from segzero_ml.errors import SegZeroError
from training_hooks import processes
from training_hooks.redis_client import redacted
from training_hooks.redis_server import EmbeddedServer

_START_S: Final = 24 * 3600.0
"""Loading gigabytes takes minutes, and there is nothing better to do than to wait."""


class RedisService:
    """Runs an embedded server; started again, it has the same address and the same data.

    Args:
        server: The server; it ends with this process, cleanly.
    """

    name = "redis"
    grace_s = 60.0
    hurried_grace_s = 20.0  # a clean end is a matter of the data

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._starter = ThreadPoolExecutor(1, "start-redis")
        self._start: Future[str] | None = None
        self._is_to_stop = False

    @property
    def where(self) -> str:
        """Its address, without the password."""
        return f"at {redacted(self._server.url)}, pid {self._server.pid}"

    def start(self) -> None:
        """Start it, in a thread of its own: loading the data takes a while."""
        self._start = self._starter.submit(self._server.start, _START_S)

    def is_ready(self) -> bool:
        """Whether it has loaded its data.

        Raises:
            SegZeroError: It cannot be started.
        """
        if self._start is None or not self._start.done():
            return False
        self._start.result()
        return True

    def ending(self) -> Ending | None:
        """How it ended; None while it starts or runs."""
        if self._start is None or not self._start.done():
            if self._is_to_stop:  # it may not have had a process yet when it was told to
                self.ask_to_stop()
            return None
        try:
            self._start.result()
        except SegZeroError as error:
            return Ending(f"cannot be started: {error}", None)
        code = self._server.wait(0)
        return None if code is None else Ending.of(code)

    def last_words(self) -> str:
        """Where to read them: it has a log of its own."""
        return f"See {self._server.log}."

    def ask_to_stop(self) -> None:
        """Have it write everything to disk and end; also while it still loads."""
        self._is_to_stop = True
        pid = self._server.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once: at worst, the last second's writes are lost."""
        pid = self._server.pid
        if pid is not None:
            processes.signal_group(pid, signal.SIGKILL)

    def close(self) -> None:
        """To be called when it has ended for good."""
        self._server.stop()
        self._starter.shutdown()
