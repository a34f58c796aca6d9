"""The demo as a user runs it, from its first line to Ctrl-C."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.demo.install import VERSION
from backend.demo.run import TASKS

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
        deadline = time.monotonic() + READY_S
        while "See how your corrections arrive" not in self.text():
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


@pytest.mark.slow
def test_the_demo_predicts_every_task_leaves_no_process_and_goes_on_later(
    program: Path, tmp_path: Path
) -> None:
    # Label Studio is there already; the rest is made from nothing.
    folder = tmp_path / "demo"
    studio = folder / "label-studio"
    (studio / "bin").mkdir(parents=True)
    (studio / "bin" / "label-studio").symlink_to(program)
    (studio / "installed.txt").write_text(VERSION)
    with demo(folder) as first:
        first.wait_until_ready()
        assert len(children_of(first.process.pid)) == 2
        below = descendants(first.process.pid)
        assert len(below) >= 5  # Label Studio, segzero up, Redis, worker, backend
        status = re.search(r"SEGZERO_DATA_DIR=\S+ .*segzero status", first.text())
        assert status is not None
        command = ["env", *shlex.split(status[0]), "--json"]
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(asked.stdout)
        assert first.stop(signal.SIGTERM) == 0
        assert f"{TASKS} of {TASKS} tasks have their prediction" in first.text()
        assert "Password" in first.text()
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    with demo(folder) as second:
        second.wait_until_ready()
        assert "Going on with the last run's project" in second.text()
        assert page_of(second) == page_of(first)
        assert second.stop(signal.SIGINT) == 0
        assert f"{TASKS} of {TASKS} tasks have their prediction" in second.text()
    with demo(folder, "--fresh") as third:
        deadline = time.monotonic() + 60
        while "As asked: dropping the last run's data" not in third.text():
            assert time.monotonic() < deadline, third.text()
            time.sleep(0.1)
        third.stop(signal.SIGTERM)
    assert not (folder / "state.json").exists()


def page_of(run: Demo) -> str:
    """The address of the project's page, which names its number."""
    found = re.search(r"http://\S+/projects/\d+", run.text())
    assert found is not None
    return found[0]
