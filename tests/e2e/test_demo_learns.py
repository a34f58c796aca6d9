"""The demo from the first correction to a promoted version that Label Studio shows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.demo import evening
from backend.demo.correct import COMPARED
from backend.demo.follow import newest_round
from backend.demo.state import Folder, State, evening_project, saved_state
from backend.label_studio import LabelStudio
from backend.learning.round_state import Phase, RoundState
from backend.settings import load_settings
from tests.e2e.demo_run import demo, with_label_studio

CORRECTING_S = 3000


@pytest.mark.slow
def test_correcting_the_evening_scenes_ends_in_a_better_version_that_is_shown(
    program: Path, tmp_path: Path
) -> None:
    folder = Folder(with_label_studio(tmp_path / "demo", program))
    with demo(folder.root) as running:
        running.wait_until("make demo-correct")
        state = saved_state(folder)
        assert state is not None
        command = [sys.executable, "-m", "backend.demo.correct", "--folder", str(folder.root)]
        made = subprocess.run(
            command, capture_output=True, text=True, timeout=CORRECTING_S, check=False
        )
        assert made.returncode == 0, made.stdout + made.stderr
        found = re.search(r"(\d+) tasks annotated, (\d+) of them corrected\.", made.stdout)
        assert found is not None, made.stdout
        assert int(found[2]) == evening.CORRECTIONS < int(found[1])
        ended = newest_round(load_settings(data_dir=folder.segzero), evening_project(state))
        assert ended is not None
        check_round(ended, made.stdout)
        check_served(ended, state, folder, made.stdout)
        assert running.stop(signal.SIGTERM) == 0


def check_round(ended: RoundState, told: str) -> None:
    """It was started by the number of corrections alone, ran its steps, and got its verdict."""
    assert ended.phase is Phase.PROMOTED, ended.text
    assert any(f"{evening.CORRECTIONS} start a round" in reason for reason in ended.reasons)
    assert 0 < ended.step <= int(evening.SETTINGS["SEGZERO_TRAIN_MAX_STEPS"])
    assert ended.verdict
    assert all(reason in told for reason in ended.verdict)
    # That the images held out are enough to tell is what the demo was made for.
    assert not any("are needed. Correct more" in reason for reason in ended.verdict)
    assert Path(ended.report).is_file()


def check_served(ended: RoundState, state: State, folder: Folder, told: str) -> None:
    """A promoted version is what Label Studio shows of tasks that nobody corrected."""
    project = evening_project(state)
    assert {one["version"]: one["serves"] for one in models(folder, project)} == {
        ended.version: True,
        "base": False,
    }
    with LabelStudio(state.label_studio_url, state.user.token) as client:
        shown = client.project(project).model_version
        assert shown is not None
        assert shown.endswith(f"+{ended.version}")
        other = client.project(state.project_id or 0).model_version
        assert other == shown.partition("+")[0]  # nobody corrected anything there
        free = [task for task in client.tasks(project) if not task.annotations]
        new = [one for task in free for one in task.predictions if one.model_version == shown]
        assert len(new) > COMPARED // 2  # some pictures may still go without an answer
    assert re.search(r"mean\D+\d\.\d\d\D+\d\.\d\d", told), told


def models(folder: Folder, project: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "backend.cli", "models", "--project", str(project), "--json"]
    env = {**os.environ, "SEGZERO_DATA_DIR": str(folder.segzero)}
    asked = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    listed: list[dict[str, Any]] = json.loads(asked.stdout)["models"]
    return listed
