"""The demo as a user runs it, from its first line to Ctrl-C."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from backend.demo.run import TASKS
from tests.e2e.demo_run import Demo, children_of, demo, descendants, with_label_studio


@pytest.mark.slow
def test_the_demo_predicts_every_task_leaves_no_process_and_goes_on_later(
    program: Path, tmp_path: Path
) -> None:
    folder = with_label_studio(tmp_path / "demo", program)
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
