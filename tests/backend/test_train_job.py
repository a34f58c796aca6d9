"""A round from the queue to the registry, with real processes and the bundled pair.

One round is trained for all tests here. In so few steps it learns nothing that counts: for what
comes after a better one, its result is changed to say so.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from rq.job import Job

from backend.learning.folders import locks_folder, loop_name
from backend.learning.promotion import promote
from backend.learning.round_run import RoundRun, Work
from backend.learning.round_state import Phase, RoundState, write_state
from backend.learning.trainer import Ending
from backend.learning.trigger import consider
from segzero_ml.errors import RegistryError, WeightsError
from segzero_ml.pipeline import Pipeline
from segzero_ml.reasoner.adapters import Adapters
from segzero_ml.reasoner.golden import record_golden
from segzero_ml.reasoner.local import LocalReasoner
from tests.backend.corrected import PROJECT, FileServer
from tests.backend.train_world import SCENES, Project, TrainWorker, project, use
from training_hooks.fence import acquire
from training_hooks.job_errors import JobCancelledError, StaleFenceError
from training_hooks.loop_reader import ROUND_FAILED, LoopReader
from training_hooks.queues import QueueName
from training_hooks.running_job import RunningJob, ask_to_end

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, FileServer]]:
    """A project whose first round is over: asked for by the count of its corrections."""
    with (
        project(tmp_path_factory.mktemp("data")) as here,
        FileServer.running() as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        use(here, server, patch)
        patch.setenv("SEGZERO_TRAIN_EVERY_CORRECTIONS", str(SCENES))
        job_id = consider(here.client, here.settings, PROJECT.project)
        assert job_id is not None
        assert consider(here.client, here.settings, PROJECT.project) is None
        with TrainWorker(tmp_path_factory.mktemp("log") / "log", burst=True) as worker:
            assert worker.finish() == 0
        yield here, server


@pytest.fixture
def here(trained: tuple[Project, FileServer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    found, server = trained
    monkeypatch.setenv("SEGZERO_TRAIN_EVERY_CORRECTIONS", str(SCENES))
    with found.kept(server, monkeypatch):
        yield found


@pytest.fixture
def better(here: Project, tiny_pipeline: Pipeline) -> Project:
    """The same as if the round had passed the gate, and its job had died right then."""
    (folder,) = here.rounds
    result = json.loads((folder / "result.json").read_text())
    result["verdict"] |= {"promote": True, "reasons": ["Mean mask IoU 0.5 → 0.7."]}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "golden.json").write_text(json.dumps(golden(tiny_pipeline, folder / result["best"])))
    here.forget_the_end()
    return here


def golden(pipeline: Pipeline, adapter: Path) -> dict[str, object]:
    """As the round's process writes it."""
    assert isinstance(pipeline.reasoner, LocalReasoner)
    adapters = Adapters(pipeline.reasoner)
    adapted = adapters.put_on(adapter)
    try:
        (one,) = record_golden(adapted, [Image.new("RGB", (64, 64), "grey")], ["the red star"])
    finally:
        adapters.take_off(adapted)
    png = base64.b64encode(one.png).decode()
    rows = [{"request": one.request, "png": png, "text": one.text}]
    return {"base": pipeline.reasoner.version, "golden": rows}


def work_of(here: Project, name: str) -> Iterator[Work]:
    settings = here.settings
    with acquire(name, locks_folder(settings), here.client) as fence:
        yield Work(settings, PROJECT, name, here.client, here.registry, fence, None)


def run(here: Project, folder: Path) -> RoundState:
    """Run the job that waits, to its end."""
    with TrainWorker(folder / "log", burst=True) as worker:
        assert worker.finish() == 0
    state = here.state
    assert state is not None
    return state


def test_a_round_that_is_whole_is_recorded_and_its_corrections_are_old(here: Project) -> None:
    state = here.state
    assert state is not None
    assert state.phase == "kept"
    assert state.reasons == (f"There are {SCENES} new corrections; {SCENES} start a round.",)
    assert (state.step, state.steps) == (2, 2)
    assert state.peak_memory_bytes > 100e6
    assert state.seconds > 1
    assert any("held-out" in reason for reason in state.verdict)
    (folder,) = here.rounds
    assert Path(state.report) == folder / "report.html"
    outcome = json.loads((folder / "outcome.json").read_text())
    assert (outcome["phase"], outcome["version"]) == ("kept", "")
    reader = LoopReader(here.client)
    mark = reader.trained_until(PROJECT)
    assert mark is not None
    assert reader.learnt_after(PROJECT, mark, 10) == ()
    assert reader.watermark(PROJECT, ROUND_FAILED) is None
    assert here.registry.versions() == ()
    assert consider(here.client, here.settings, PROJECT.project) is None


def test_what_passed_the_gate_is_published_and_serves(better: Project, tmp_path: Path) -> None:
    better.ask()
    state = run(better, tmp_path)
    assert state.phase == "promoted"
    champion = better.registry.champion()
    assert champion is not None
    assert champion.id == state.version
    assert (champion.info.round, champion.info.snapshot) == (state.round, state.snapshot)
    assert champion.info.figures["steps"] == 2
    assert len(champion.info.golden) == 1
    # Nothing was trained for it: the round was whole already.
    assert (better.rounds[0] / "log.txt").read_text().count("train_runtime") == 1


def test_a_job_that_died_after_promoting_does_not_publish_twice(
    better: Project, tmp_path: Path
) -> None:
    better.ask()
    first = run(better, tmp_path)
    better.forget_the_end()
    # As the next try of the job finds it: it had begun, and its end is not recorded.
    job_id = better.ask()
    begun = replace(first, job=job_id, phase=Phase.PROMOTING, ended_at="", version="")
    write_state(better.client, loop_name(better.settings, PROJECT.project), begun)
    second = run(better, tmp_path)
    assert second.phase == "promoted"
    assert second.version == first.version
    assert [one.id for one in better.registry.versions()] == [first.version]


def begun(here: Project) -> Iterator[tuple[RoundRun, RunningJob]]:
    """A round in this process, whose job has just seen that nobody wants its end."""
    job_id = here.ask()
    job = RunningJob(Job.fetch(job_id, here.client), lambda: 0.0)
    assert not job.cancelled()
    for work in work_of(here, loop_name(here.settings, PROJECT.project)):
        state = RoundState(job_id, datetime.now(UTC).isoformat())
        yield RoundRun(replace(work, job=job), state), job
    here.queues.cancel(job_id)


def test_a_cancel_in_the_last_moment_is_kept_and_nothing_is_promoted(better: Project) -> None:
    for going, job in begun(better):
        ask_to_end(job.job_id, better.client)
        with pytest.raises(JobCancelledError):
            going.go()
    assert better.registry.versions() == ()


def test_a_process_that_was_whole_before_it_saw_the_cancel_is_cancelled_nevertheless(
    better: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = better.rounds
    result = (folder / "result.json").read_bytes()
    (folder / "result.json").unlink()

    def run_process(*_: object) -> Ending:
        (folder / "result.json").write_bytes(result)
        (folder / "cancel").touch()
        return Ending(0, "")

    monkeypatch.setattr("backend.learning.round_run.run_process", run_process)
    for going, _ in begun(better):
        with pytest.raises(JobCancelledError):
            going.go()
    assert better.registry.versions() == ()
    # Whoever asks for it again gets it.
    for going, _ in begun(better):
        assert going.go().phase == "promoted"


def test_while_another_trains_a_job_waits_for_its_next_try(better: Project, tmp_path: Path) -> None:
    name = loop_name(better.settings, PROJECT.project)
    job_id = better.ask()
    with acquire(name, locks_folder(better.settings), better.client):
        with TrainWorker(tmp_path / "log", burst=True) as worker:
            assert worker.finish() == 0
        job = better.queues.find(job_id)
        assert job.status == "scheduled"
        assert "TrainerBusyError" in (job.last_failure or "")
        assert better.registry.versions() == ()
    with TrainWorker(tmp_path / "log"):
        better.until("promoted")


def test_a_stale_trainer_cannot_promote(better: Project) -> None:
    name = loop_name(better.settings, PROJECT.project)
    works = work_of(better, name)
    work = next(works)
    work.fence.release()
    with acquire(name, locks_folder(better.settings), better.client):
        pass  # has come and gone meanwhile
    (folder,) = better.rounds
    result = json.loads((folder / "result.json").read_text())
    with pytest.raises(StaleFenceError):
        promote(work, RoundState("job", datetime.now(UTC).isoformat()), folder, result)
    assert better.registry.champion() is None


def test_a_version_that_others_put_in_service_meanwhile_stays(
    better: Project, tmp_path: Path
) -> None:
    better.ask()
    first = run(better, tmp_path)
    (folder,) = better.rounds
    result = json.loads((folder / "result.json").read_text())
    state = RoundState("job", datetime.now(UTC).isoformat(), champion="v9-00000000", round="other")
    for work in work_of(better, loop_name(better.settings, PROJECT.project)):
        with pytest.raises(RegistryError, match="Another version was put in service"):
            promote(work, state, folder, result)
    champion = better.registry.champion()
    assert champion is not None
    assert champion.id == first.version


def test_a_damaged_checkpoint_fails_at_once_and_says_so(better: Project, tmp_path: Path) -> None:
    (folder,) = better.rounds
    best = json.loads((folder / "result.json").read_text())["best"]
    tensors = folder / best / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    job_id = better.ask()
    state = run(better, tmp_path)
    assert state.phase == "failed"
    assert better.queues.find(job_id).status == "failed"
    assert better.registry.champion() is None
    assert better.queues.depth(QueueName.TRAIN).dead == 1
    outcome = json.loads((folder / "outcome.json").read_text())
    assert (outcome["phase"], outcome["version"]) == ("failed", "")


def test_golden_predictions_that_are_damaged_are_refused(better: Project) -> None:
    from backend.learning.promotion import read_noted

    (folder,) = better.rounds
    (folder / "golden.json").write_text('{"base": "x", "golden": [{"request": "star"}]}')
    with pytest.raises(WeightsError):
        read_noted(folder / "golden.json")
