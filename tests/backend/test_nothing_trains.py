"""Where the extra `train` is missing: who asks for a round is told, instead of waiting for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rq import Worker

from backend.jobs import ALLOWED
from backend.learning.train_queue import enqueue
from backend.learning.trigger import consider
from backend.redis_access import spool_folder
from backend.settings import load_settings
from tests.backend.corrected import PROJECT, Run, World, runner, world
from tests.backend.serving import Serve
from tests.training_hooks.store_samples import correction
from training_hooks.queues import QueueName, Queues
from training_hooks.spool import survey

PRESSED = {"action": "START_TRAINING", "project": {"id": 7}}
REMEDY = 'pip install "segzero-label-studio[train]"'


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def here(_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Enough corrections for a round, and nothing to run it."""
    monkeypatch.setattr("backend.learning.installed.can_train", lambda: False)
    found = _world.use(monkeypatch)
    for number in range(1, 26):
        found.store.upsert(correction(number, number, task=number, project=PROJECT))
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def queues(here: World) -> Queues:
    return Queues(here.client, ALLOWED)


@pytest.fixture
def elsewhere(here: World) -> Iterator[None]:
    """A worker of the queue on another machine."""
    worker = Worker([queues(here).open(QueueName.TRAIN)], connection=here.client)
    worker.register_birth()
    yield
    worker.register_death()


@pytest.mark.parametrize("option", [None, "--follow"])
def test_a_round_by_hand_is_refused_with_what_to_install(
    here: World, run: Run, option: str | None
) -> None:
    ran = run("train", "--project", 7, *([option] if option else []))
    assert ran.code == 1
    assert "no worker of the queue train runs" in " ".join(ran.err.split())
    assert REMEDY in ran.err
    assert queues(here).depth(QueueName.TRAIN).waiting == 0


def test_a_round_that_waits_already_is_not_followed_for_ever(here: World, run: Run) -> None:
    enqueue(queues(here), here.settings, 7)
    ran = run("train", "--project", 7, "--follow")
    assert ran.code == 1
    assert REMEDY in ran.err


def test_a_dry_run_says_what_would_be_learnt_and_that_nothing_would_start(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_HELD_OUT_SHARE", "0.9")  # enough to be judged by
    ran = run("train", "--project", 7, "--dry-run")
    assert ran.code == 1
    assert "It would learn from" in ran.out
    assert "By hand one would" not in ran.out
    assert REMEDY in ran.err


@pytest.mark.usefixtures("elsewhere")
def test_a_worker_elsewhere_is_enough(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_HELD_OUT_SHARE", "0.9")  # enough to be judged by
    assert run("train", "--project", 7, "--dry-run").code == 0
    assert run("train", "--project", 7).code == 0
    assert queues(here).depth(QueueName.TRAIN).waiting == 1


def test_a_round_that_is_due_by_itself_waits_and_status_says_for_what(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.commands.status_view.can_train", lambda: False)
    monkeypatch.setenv("COLUMNS", "300")
    assert consider(here.client, load_settings(train_every_corrections=20), 7) is not None
    said = run("status").out
    assert "No worker of the queue train runs" in said
    assert REMEDY in said


def test_start_training_is_refused_and_not_kept(here: World, serve: Serve) -> None:
    with serve(data_dir=here.folder) as backend:
        reply = backend.post("/webhook", PRESSED)
        assert reply.status_code == 501
        assert REMEDY in reply.json()["detail"]
        assert survey(spool_folder(here.settings)).depth == 0


@pytest.mark.usefixtures("elsewhere")
def test_start_training_is_taken_where_a_worker_runs_elsewhere(here: World, serve: Serve) -> None:
    with serve(data_dir=here.folder) as backend:
        assert backend.post("/webhook", PRESSED).status_code == 200


def test_start_training_is_taken_while_nobody_knows_of_workers(here: World, serve: Serve) -> None:
    here.server.stop()
    with serve(data_dir=here.folder) as backend:
        assert backend.post("/webhook", PRESSED).status_code == 200
