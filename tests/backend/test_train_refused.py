"""Rounds that end before anything is trained: nothing is learnt, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from backend.learning import train_job
from backend.learning.facts import gather, policy_options
from backend.learning.train_job import run
from backend.learning.trigger import consider, look
from segzero_ml.errors import StoreError, WeightsError
from tests.backend.corrected import PROJECT, FileServer
from tests.backend.train_world import Project, project, use
from training_hooks.loop_reader import START_TRAINING, LoopReader, note_gone, note_there
from training_hooks.policy import Decision, LoopFacts

FEW = 10


@pytest.fixture(scope="module")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, FileServer]]:
    with (
        project(tmp_path_factory.mktemp("data")) as found,
        FileServer.running() as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        use(found, server, patch, FEW)
        yield found, server


@pytest.fixture
def here(
    _project: tuple[Project, FileServer], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    found, server = _project
    with found.kept(server, monkeypatch):
        monkeypatch.setenv("SEGZERO_TRAIN_EVERY_CORRECTIONS", str(FEW))
        yield found


def facts(here: Project) -> LoopFacts:
    reader = LoopReader(here.client)
    return gather(reader, PROJECT, policy_options(here.settings), running=False)


def decision(here: Project) -> Decision:
    return look(here.client, here.settings, PROJECT.project)[0]


def press(here: Project) -> None:
    here.store.set_watermark(PROJECT, START_TRAINING, datetime.now(UTC))


def test_a_round_that_could_not_be_judged_ends_before_it_trains_and_is_not_tried_again_at_once(
    here: Project,
) -> None:
    assert decision(here).train
    # It does not raise: the job is whole, without a dead letter or another try.
    assert run(PROJECT.project)["outcome"] == "refused"
    state = here.state
    assert state is not None
    assert state.phase == "refused"
    (sentence,) = state.verdict
    assert "held-out cases of only" in sentence
    assert "at least 20 are needed" in sentence
    assert state.text.startswith(sentence)
    assert "60 % are held out" in state.text
    assert here.rounds == []
    # The corrections stay new, and what starts by itself waits as after a failure.
    assert (len(facts(here).new_at), facts(here).failed) == (FEW, True)
    assert not decision(here).train
    assert "a pause of 3" in str(decision(here).refusal)
    # Whoever asks for it gets an answer each time.
    press(here)
    assert decision(here).train
    assert run(PROJECT.project)["outcome"] == "refused"
    assert not decision(here).train
    assert consider(here.client, here.settings, PROJECT.project) is None


def test_a_champion_that_cannot_be_told_fails_the_round_says_why_and_waits(here: Project) -> None:
    here.registry.folder.mkdir(parents=True)
    (here.registry.folder / "champion").write_text("{")
    press(here)
    with pytest.raises(WeightsError, match="does not say which version serves"):
        run(PROJECT.project)
    state = here.state
    assert state is not None
    assert state.phase == "failed"
    assert "segzero rollback --to" in state.text
    assert len(facts(here).new_at) == FEW
    # The press had its answer, and what starts by itself waits.
    assert not decision(here).train
    assert "failed" in str(decision(here).refusal)


@pytest.mark.parametrize("step", ["write_state", "note_start"])
def test_a_press_is_not_lost_where_redis_fails_or_the_job_dies_as_its_round_begins(
    here: Project, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_EVERY_CORRECTIONS", "0")
    press(here)

    def away(*_: object) -> None:
        raise StoreError("Redis does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(train_job, step, away)
        with pytest.raises(StoreError):
            run(PROJECT.project)
    assert decision(here).train
    # The next try goes through with it, and then it is served.
    assert run(PROJECT.project)["outcome"] == "refused"
    state = here.state
    assert state is not None
    assert state.reasons[0].startswith("Start training was pressed")
    assert not decision(here).train


@pytest.mark.parametrize("by_hand", [True, False])
def test_the_job_of_a_project_that_is_gone_runs_no_round(here: Project, by_hand: bool) -> None:
    note_gone(here.store, PROJECT, datetime.now(UTC))
    found = run(PROJECT.project, by_hand)
    assert found["outcome"] == "no round"
    assert "no longer in Label Studio" in found["why"]
    note_there(here.store, PROJECT)
    assert decision(here).train
