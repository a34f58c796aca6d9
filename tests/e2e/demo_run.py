"""The demo as a process, for the tests that run it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.demo.install import VERSION

READY_S = 1500


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def descendants(pid: int) -> set[int]:
    """All processes below one; some are started by threads, whose children are listed apart."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    direct = {int(child) for one in threads for child in (one / "children").read_text().split()}
    return direct.union(*map(descendants, direct))


class Demo:
    """The demo in a process of its own, and what it prints."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.output = folder.with_suffix(f".{time.monotonic_ns()}")
        command = [sys.executable, "-m", "backend.demo", "--folder", str(folder), *options]
        with self.output.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)

    def text(self) -> str:
        return self.output.read_text()

    def wait_until_ready(self) -> None:
        self.wait_until("See how your corrections arrive")

    def wait_until(self, words: str) -> None:
        deadline = time.monotonic() + READY_S
        while words not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.5)

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(180)


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[Demo]:
    running = Demo(folder, *options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def with_label_studio(folder: Path, program: Path) -> Path:
    """A demo's folder in which Label Studio is installed already; the rest is made from nothing."""
    studio = folder / "label-studio"
    (studio / "bin").mkdir(parents=True)
    (studio / "bin" / "label-studio").symlink_to(program)
    (studio / "installed.txt").write_text(VERSION)
    return folder
