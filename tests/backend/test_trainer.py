"""What a train job makes of the end of the process that it started."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from backend.learning.trainer import Ending, RoundFailedError, run_process
from backend.settings import Settings, load_settings
from segzero_ml.errors import JobError
from training_hooks.round_files import ERROR

REFUSAL = {"error": "DatasetError", "message": "There is no star.", "remedy": "Draw one."}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path / "data")


def run(folder: Path, settings: Settings, script: str) -> Ending:
    """A process that runs some lines of Python in the round's folder."""
    with (folder / "lock").open("wb") as lock:
        program = f"import os, sys; os.chdir({str(folder)!r})\n{script}"
        return run_process([sys.executable, "-c", program], folder, settings, lock.fileno())


def refusing(status: int) -> str:
    return f"open({ERROR!r}, 'w').write({json.dumps(REFUSAL)!r}); print('===='); sys.exit({status})"


@pytest.mark.parametrize("status", [1, 2])
def test_a_refusal_is_told_whatever_status_a_launcher_makes_of_it(
    tmp_path: Path, settings: Settings, status: int
) -> None:
    ending = run(tmp_path, settings, refusing(status))
    with pytest.raises(RoundFailedError, match=r"^There is no star\.") as raised:
        ending.check("The training")
    assert raised.value.remedy == "Draw one."


def test_what_an_earlier_try_refused_is_not_told_again(tmp_path: Path, settings: Settings) -> None:
    run(tmp_path, settings, refusing(1))
    ending = run(tmp_path, settings, "print('Killed by a full moon.'); sys.exit(1)")
    with pytest.raises(JobError, match="Killed by a full moon") as raised:
        ending.check("The training")
    assert not isinstance(raised.value, RoundFailedError)


def test_a_process_that_is_killed_is_tried_again_whatever_it_said(
    tmp_path: Path, settings: Settings
) -> None:
    script = refusing(1).replace("sys.exit(1)", "sys.stdout.flush(); os.kill(os.getpid(), 9)")
    with pytest.raises(JobError, match="signal 9") as raised:
        run(tmp_path, settings, script).check("The training")
    assert not isinstance(raised.value, RoundFailedError)


@pytest.mark.parametrize("said", ["", "[]", "{", '{"message": null}'])
def test_a_refusal_that_cannot_be_read_is_a_failure_like_any_other(
    tmp_path: Path, settings: Settings, said: str
) -> None:
    with pytest.raises(JobError):
        run(tmp_path, settings, f"open({ERROR!r}, 'w').write({said!r}); sys.exit(2)").check("It")


CUT_OFF = """
import resource, signal, torch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
torch.save({"exp_avg": torch.zeros(1 << 16)}, "optimizer.pt")
"""


@pytest.mark.slow
def test_a_file_that_torch_cannot_write_whole_is_told_as_missing_room_and_where(
    tmp_path: Path, settings: Settings
) -> None:
    ending = run(tmp_path, settings, CUT_OFF)
    assert "No space" not in ending.log
    with pytest.raises(JobError, match="There is no room left on the disk of") as raised:
        ending.check("The training process")
    assert f"of {tmp_path} (" in raised.value.message
    assert "Make room there" in raised.value.remedy
    assert not isinstance(raised.value, RoundFailedError)  # the next try may find some


def test_a_disk_that_is_full_is_told_though_not_even_the_log_had_room_to_say_so(
    tmp_path: Path, settings: Settings
) -> None:
    ending = run(tmp_path, settings, "sys.exit(1)")
    with pytest.raises(JobError, match="broke off: exit status 1"):
        ending.check("The training")
    with pytest.raises(JobError, match=r"no room left on the disk of .* \(0\.0 GB free\)"):
        replace(ending, free_bytes=4096).check("The training")


@pytest.mark.slow
def test_processes_that_accelerate_launched_say_why_they_refuse(
    tmp_path: Path, settings: Settings
) -> None:
    config = tmp_path / "two.yaml"
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nuse_cpu: true\n"
        "num_machines: 1\nnum_processes: 2\nmixed_precision: 'no'\n"
    )
    folder = tmp_path / "round"
    folder.mkdir()
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    what = ["--snapshot", str(tmp_path / "none"), "--out", str(folder), "--preset", "tiny"]
    with (tmp_path / "lock").open("wb") as lock:
        ending = run_process(
            [*launch, "-m", "training_hooks.launched", *what], folder, settings, lock.fileno()
        )
    with pytest.raises(RoundFailedError, match="no snapshot"):
        ending.check("The training")
