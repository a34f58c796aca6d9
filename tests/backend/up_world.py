"""A real `segzero up` for the tests, and waiting for what its processes do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from backend.intake.changes import TasksGone, pack
from training_hooks.queues import QueueName, Queues

PATIENCE_S: Final = 180.0  # the tests share the machine; a process may take long to start


def until(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Waits until it holds."""
    give_up = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < give_up, f"not within {patience_s} s: {what}"
        time.sleep(0.05)


def add_a_job(queues: Queues, job_id: str) -> None:
    """Puts a job into the queue that needs no Label Studio."""
    changes = [pack(TasksGone(project=1, tasks=(1,)))]
    assert queues.enqueue(QueueName.INGEST, "ingest", job_id, {"changes": changes})


def is_alive(pid: int) -> bool:
    """Whether the process runs; a dead one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def descendants(pid: int) -> set[int]:
    """All processes below one."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return set()
    direct = {int(child) for child in children}
    # Redis is started by a thread, whose children are listed apart.
    for task in Path(f"/proc/{pid}/task").iterdir():
        direct.update(int(child) for child in (task / "children").read_text().split())
    return direct.union(*(descendants(child) for child in direct))


class Up:
    """`segzero up` in a process of its own; killed with the test.

    Args:
        folder: Its data lie in `data` in there, its log is `log`.
        options: Further options.
        env: Further variables.
    """

    def __init__(self, folder: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.data = folder / "data"
        self.log = folder / f"log-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "backend.cli", "up", "--port", "0"]
        clean = {name: at for name, at in os.environ.items() if not name.startswith("SEGZERO_")}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.data), *options],
                env={**clean, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
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
            print(self.text())

    def text(self) -> str:
        return self.log.read_text()

    def records(self) -> list[dict[str, Any]]:
        """Its log so far, one record a line."""
        lines = self.text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def said(self, pattern: str, process: str = "up") -> list[str]:
        """The messages of a process that match."""
        return [
            record["message"]
            for record in self.records()
            if record["process"] == process and re.search(pattern, record["message"])
        ]

    def wait_for(self, pattern: str, times: int = 1) -> str:
        """Waits until it has said so that often; the last such message."""

        def is_said() -> bool:
            assert self.process.poll() is None, self.text()
            return len(self.said(pattern)) >= times

        until(is_said, f"{pattern}, {times} times")
        return self.said(pattern)[-1]

    def pid_of(self, name: str) -> int:
        """The process that runs under a name now."""
        return int(self.wait_for(rf"^{name} runs \(").rpartition("pid ")[2].rstrip(")"))

    def kill(self, name: str) -> None:
        """Ends one of its processes by SIGKILL and waits until another one runs."""
        before = len(self.said(rf"^{name} runs \("))
        pid = self.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        self.wait_for(rf"^{name} runs \(", before + 1)
        assert self.pid_of(name) != pid

    @property
    def url(self) -> str:
        """Where the backend answers, once it predicts."""
        return self.wait_for(r"^ready: ").split()[1]

    def health(self) -> str:
        return str(httpx.get(f"{self.url}/health", timeout=30).json()["status"])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)
