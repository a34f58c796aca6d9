"""Worker processes and waiting, for the tests of the queues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from redis import Redis

from tests.training_hooks.rq_jobs import ALLOWED
from training_hooks.queues import QueueName, QueuePolicy, Queues

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0  # the tests share the machine; a process may take long to start
FAST: Final[Mapping[str, Any]] = {
    "heartbeat_s": 1,
    "abandon_after_s": 3,
    "poll_s": 1,
    "tidy_every_s": 1,
    "stop_grace_s": 1.0,
}
POLICIES: Final = {
    QueueName.INGEST: QueuePolicy(60, (1, 1), 600),
    QueueName.PREDICT: QueuePolicy(60, (), 600),
    QueueName.TRAIN: QueuePolicy(60, (1, 2, 2), 600),
}


def queues(client: Redis) -> Queues:
    return Queues(client, ALLOWED, POLICIES)


class WorkerProcess:
    """A worker in a process of its own; killed with the test."""

    def __init__(
        self,
        url: str,
        log: Path,
        queue: str = "ingest",
        *,
        burst: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.log = log
        command = [sys.executable, "-m", "tests.training_hooks.rq_worker", url, queue]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, json.dumps({**FAST, **(options or {})}), *(["burst"] if burst else [])],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if error is not None:
            print(self.log.read_text())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def finish(self) -> int:
        """Waits for a burst worker, or one that was told to stop."""
        return self.process.wait(PATIENCE_S)


def until(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> float:
    """Waits until it holds; how many seconds that took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < patience_s, f"not within {patience_s} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - started


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def count(path: Path, word: str) -> int:
    return sum(line.split()[0] == word for line in lines(path))


def is_alive(pid: int) -> bool:
    """Whether the process runs; a dead one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def newest_pid(path: Path, word: str = "start") -> int:
    return int([line for line in lines(path) if line.startswith(word)][-1].split()[1])
