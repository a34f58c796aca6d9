"""What the workers under test run: real functions that leave traces in a file."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from training_hooks import processes
from training_hooks.fence import acquire, check
from training_hooks.running_job import RunningJob

ALLOWED = {
    name: f"tests.training_hooks.rq_jobs.{name}"
    for name in (
        "remember",
        "slow",
        "flaky",
        "obedient",
        "with_child",
        "forking",
        "trainer",
        "leave",
        "odd",
    )
}


def write(path: str, line: str) -> None:
    """Adds a line in one write, so that two processes cannot mix theirs."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def remember(path: str, line: str = "ran") -> dict[str, str]:
    write(path, line)
    return {"wrote": line}


def slow(path: str, seconds: float) -> str:
    job = RunningJob.current()
    write(path, f"start {os.getpid()}")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        if job is not None:
            job.progress(seconds - (end - time.monotonic()), seconds + 1, "sleeping")
    write(path, f"done {os.getpid()}")
    return "slept"


def flaky(path: str, failures: int) -> str:
    """Fails as often as told, with secrets in its message."""
    write(path, "try")
    if len(Path(path).read_text().splitlines()) <= failures:
        raise ValueError(
            "https://me:hunter2@studio/api?sig=abc Authorization: Token 0123456789abcdef"
        )
    return "at last"


def obedient(path: str) -> None:
    job = RunningJob.current()
    if job is None:
        raise RuntimeError("not in a worker")
    write(path, "start")
    for step in range(600):
        job.progress(step, 600, "waiting to be told")
        job.check()
        time.sleep(0.1)
    write(path, "never told")


def with_child(path: str) -> None:
    """Starts a program, which must not outlive the job."""
    child = processes.start([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    write(path, f"child {child.pid}")
    write(path, f"start {os.getpid()}")
    child.wait()


def forking(path: str) -> None:
    """Leaves a process in its group that nothing ties to its life."""
    if os.fork() == 0:
        write(path, f"child {os.getpid()}")
        time.sleep(60)
        os._exit(0)
    write(path, f"start {os.getpid()}")
    time.sleep(60)


def trainer(path: str, folder: str, seconds: float) -> int:
    job = RunningJob.current()
    if job is None:
        raise RuntimeError("not in a worker")
    with acquire(7, Path(folder), job.connection) as fence:
        write(path, f"start {os.getpid()}")
        time.sleep(seconds)
        check(fence, job.connection)
        write(path, f"promoted {fence.token}")
        return fence.token


def leave() -> None:
    sys.exit("gone")


def odd() -> object:
    return object()
