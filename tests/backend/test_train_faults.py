"""What may happen to a round while it runs: kills, an outage, a full disk, a change of mind."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.learning.round_words import one_line
from backend.learning.train_job import run as run_job
from backend.learning.trainer import Ending
from tests.backend.corrected import PROJECT, FileServer, Run, runner
from tests.backend.train_world import (
    PATIENCE_S,
    SCENES,
    Project,
    TrainWorker,
    project,
    trainers,
    use,
)
from tests.backend.up_world import is_alive
from tests.backend.up_world import until as wait_until
from training_hooks.loop_reader import ROUND_ENDED, ROUND_FAILED, LoopReader
from training_hooks.round_files import OUTCOME, RESULT
from training_hooks.snapshot import Reason

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with project(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer.running() as found:
        yield found


@pytest.fixture
def here(
    _project: Project, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Project:
    use(_project, server, monkeypatch)
    # Snapshots, rounds and versions of its own.
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "redis").symlink_to(_project.folder / "redis")
    monkeypatch.setenv("SEGZERO_DATA_DIR", str(tmp_path / "data"))
    return _project


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def until(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Waits until it holds; a round takes longer than most."""
    wait_until(holds, what, patience_s)


def until_trains(here: Project) -> int:
    """Wait for a training process that has made a step; its pid."""
    until(lambda: here.phase == "training" and bool(here.checkpoints), "a checkpoint")
    (pid,) = trainers(here)
    return pid


def test_a_killed_trainer_and_a_killed_worker_are_made_good_and_one_trains_at_a_time(
    here: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_MAX_STEPS", "40")
    monkeypatch.setenv("SEGZERO_TRAIN_EPOCHS", "40")
    job_id = here.ask()
    first = TrainWorker(tmp_path / "first")
    with first:
        pid = until_trains(here)
        os.kill(pid, signal.SIGKILL)
        # Noticed at once, and tried again once.
        assert here.until("waiting") < 5
        assert "killed by signal 9" in (here.queues.find(job_id).last_failure or "")
        until(lambda: trainers(here) not in ([], [pid]), "another trainer")
        steps = len(here.checkpoints)
        until(lambda: len(here.checkpoints) > steps, "a step of the second trainer")
        (second,) = trainers(here)
        first.kill()
        began = time.monotonic()
        until(lambda: not is_alive(second), "the end of the trainer", 10)
        assert time.monotonic() - began < 2
    newest = max(here.checkpoints)
    (folder,) = here.rounds
    made_at = (folder / f"checkpoint-{newest}" / "trainer_state.json").stat().st_mtime_ns
    with TrainWorker(tmp_path / "second"):
        until(lambda: max(here.checkpoints) > newest, "a step of the third trainer")
        # It goes on where the one before was killed, in the same folder.
        assert here.rounds == [folder]
        kept = folder / f"checkpoint-{newest}" / "trainer_state.json"
        assert not kept.exists() or kept.stat().st_mtime_ns == made_at
        # The state is told a moment after the checkpoint is written.
        until(lambda: here.state is not None and here.state.step > newest, "the step told")
        assert here.queues.cancel(job_id) is False
        here.until("cancelled")
    assert here.registry.versions() == ()


def test_a_cancelled_round_ends_at_its_next_step_and_its_corrections_stay_new(
    here: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_MAX_STEPS", "40")
    monkeypatch.setenv("SEGZERO_TRAIN_EPOCHS", "40")
    here.ask()
    with TrainWorker(tmp_path / "log"):
        pid = until_trains(here)
        ran = run("train", "--project", 7, "--cancel")
        assert ran.code == 0
        assert "asked to end" in ran.out
        here.until("cancelled", 60)
        until(lambda: not is_alive(pid), "the end of the trainer", 10)
        until(lambda: here.job is not None and here.job.status == "canceled", "the job's end")
    reader = LoopReader(here.client)
    assert reader.trained_until(PROJECT) is None
    assert reader.watermark(PROJECT, ROUND_FAILED) == reader.watermark(PROJECT, ROUND_ENDED)
    assert here.registry.versions() == ()
    again = run("train", "--project", 7, "--cancel")
    assert again.code == 1
    assert "No round of project 7 waits or runs" in again.err


def test_while_redis_is_away_a_round_goes_on_and_is_recorded_once(
    here: Project, tmp_path: Path
) -> None:
    job_id = here.ask()
    with TrainWorker(tmp_path / "log") as worker:
        until(lambda: here.phase == "training", "the training")
        here.server.stop()
        try:
            until(lambda: bool(list(here.rounds[0].glob("result.json"))), "the round's result")
            time.sleep(1)
        finally:
            here.server.start()
        here.until("kept")
        until(lambda: here.queues.find(job_id).status == "finished", "the job's end")
        assert worker.process.poll() is None
    assert len(here.rounds) == 1
    assert (here.rounds[0] / "log.txt").read_text().count("train_runtime") == 1


def test_while_the_host_of_images_is_away_no_round_runs_and_its_corrections_stay_new(
    here: Project, server: FileServer, tmp_path: Path
) -> None:
    server.broken = dict.fromkeys(server.files, 503)
    job_id = here.ask()
    with TrainWorker(tmp_path / "log") as worker:
        here.until("waiting")
        until(lambda: here.phase == "failed", "the last try")
        until(lambda: here.queues.find(job_id).status == "failed", "the job's end")
        assert worker.process.poll() is None
    assert here.state is not None
    assert f"{SCENES} new corrections cannot be had at present from 127.0.0.1:" in here.state.text
    assert LoopReader(here.client).trained_until(PROJECT) is None
    assert here.rounds == []


def test_the_last_try_goes_on_without_an_image_whose_host_is_away_and_says_so(
    here: Project, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_HELD_OUT_SHARE", "0.8")  # enough without these two, too
    gone, away = list(server.files)[:2]
    server.broken = {gone: 404, away: 503}

    def train(_: object, folder: Path, *__: object) -> Ending:
        verdict = {"promote": False, "reasons": ["It is no better."]}
        (folder / RESULT).write_text(json.dumps({"verdict": verdict}))
        return Ending(0, "")

    monkeypatch.setattr("backend.learning.round_run.run_process", train)
    assert run_job(PROJECT.project, by_hand=True)["outcome"] == "kept"  # no job: one try
    found = here.state
    assert found is not None
    assert found.left_out == {Reason.NO_IMAGE.value: 1, Reason.HOST_AWAY.value: 1}
    assert f"1 ({Reason.HOST_AWAY.value})" in found.text
    outcome = json.loads((Path(found.folder) / OUTCOME).read_text())
    assert outcome["left_out"] == found.left_out
    reader = LoopReader(here.client)
    news = reader.news(PROJECT)
    assert news is not None
    assert news.annotations == news.unseen == {2}
    assert reader.learnt_after(PROJECT, reader.trained_until(PROJECT), 10) == ()


def test_a_cancel_ends_the_collecting_of_corrections_between_two_images(
    here: Project, server: FileServer, tmp_path: Path
) -> None:
    seen: list[str] = []

    def answer_slowly() -> None:
        time.sleep(1.2)
        seen.append("" if here.state is None else one_line(here.state))
        if len(seen) == 2:
            here.queues.cancel(job_id)

    job_id = here.ask()
    server.before = answer_slowly
    with TrainWorker(tmp_path / "log"):
        here.until("cancelled")
    assert len(server.asked) < 5
    assert f"Collecting corrections, 2 of {SCENES}" in seen
    assert LoopReader(here.client).trained_until(PROJECT) is None


def test_without_room_for_a_checkpoint_what_serves_stays_and_the_failure_is_clear(
    here: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_RANK", "64")
    job_id = here.ask()
    small = 2 << 20  # enough for pictures and logs

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (small, small))

    with TrainWorker(tmp_path / "log", before=limit):
        until(lambda: here.phase == "waiting", "the failure")
        assert here.state is not None
        assert f"no room left on the disk of {here.rounds[0]}" in here.state.text
        assert "version that serves is untouched" in here.state.text
        here.queues.cancel(job_id)
    assert here.registry.lineage().champion is None
    assert here.registry.versions() == ()
