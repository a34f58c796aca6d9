"""The demo as a user runs it, from its first line to Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.demo.install import VERSION
from backend.demo.run import TASKS

READY_S = 1500


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


@pytest.mark.slow
def test_the_demo_predicts_every_task_and_leaves_no_process_behind(
    program: Path, tmp_path: Path
) -> None:
    # Label Studio is there already; the rest is made from nothing.
    studio = tmp_path / "demo" / "label-studio"
    (studio / "bin").mkdir(parents=True)
    (studio / "bin" / "label-studio").symlink_to(program)
    (studio / "installed.txt").write_text(VERSION)
    output = tmp_path / "output"
    command = [sys.executable, "-m", "backend.demo", "--folder", str(tmp_path / "demo")]
    with output.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as demo:
        deadline = time.monotonic() + READY_S
        while "Label Studio is ready" not in output.read_text():
            assert demo.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.5)
        servers = children_of(demo.pid)
        assert len(servers) == 2
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(120) == 0
    text = output.read_text()
    assert f"{TASKS} of {TASKS} tasks have their prediction" in text
    assert "Password" in text
    assert not [pid for pid in servers if Path(f"/proc/{pid}").exists()]
