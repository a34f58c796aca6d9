"""What is known of a project when a round may start: read from a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from backend.learning.facts import gather, policy_options, snapshot_options
from segzero_ml.corrections import Verdict
from segzero_ml.errors import ConfigError
from tests.backend.corrected import PROJECT, World, world
from tests.training_hooks.store_samples import MORNING, correction, revision
from training_hooks.loop_reader import LoopReader, note_end, note_start
from training_hooks.policy import LoopFacts, PolicyOptions, Quality, decide
from training_hooks.store import CorrectionStore

OPTIONS = PolicyOptions(every_corrections=10, min_corrections=4, min_new=2, quality_window=4)


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def here(_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    return _world.use(monkeypatch)


def save(
    store: CorrectionStore,
    count: int,
    first: int = 1,
    verdict: Verdict = Verdict.EDITED,
    edit_iou: float = 0.5,
) -> None:
    """Annotations with these ids, each saved so many seconds after eight."""
    for number in range(first, first + count):
        one = correction(
            number, number, task=number, verdict=verdict, edit_iou=edit_iou, project=PROJECT
        )
        store.upsert(one)


def facts(here: World, running: bool = False, by_hand: bool = False) -> LoopFacts:
    return gather(LoopReader(here.client), PROJECT, OPTIONS, running=running, by_hand=by_hand)


def test_an_unknown_project_has_no_facts_and_trains_nothing(here: World) -> None:
    found = facts(here)
    assert found == LoopFacts(to_learn=0)
    assert "at least 4" in str(decide(found, OPTIONS, datetime.now(UTC)).refusal)


def test_before_the_first_round_everything_but_accepted_predictions_is_new(here: World) -> None:
    began = datetime.now(UTC)
    save(here.store, 3)
    save(here.store, 2, first=10, verdict=Verdict.ACCEPTED)
    save(here.store, 1, first=20, verdict=Verdict.NOTHING_HERE)
    found = facts(here)
    assert found.to_learn == len(found.new_at) == 4
    # By the clock of this machine, not by Label Studio's, which says March.
    assert all(abs(at - began) < timedelta(minutes=2) for at in found.new_at)


def test_what_the_last_round_looked_at_is_not_new_unless_it_is_saved_again(here: World) -> None:
    save(here.store, 5)
    note_start(here.store, PROJECT, MORNING)
    note_end(here.store, PROJECT, MORNING, here.store.mark(PROJECT))
    save(here.store, 6)
    assert len(facts(here).new_at) == 1
    here.store.upsert(correction(2, 100, task=2, project=PROJECT))
    assert len(facts(here).new_at) == 2
    assert facts(here).to_learn == 6


def test_what_comes_after_a_round_is_new_however_long_ago_it_was_saved(here: World) -> None:
    save(here.store, 6, first=100)
    note_start(here.store, PROJECT, MORNING)
    note_end(here.store, PROJECT, MORNING, here.store.mark(PROJECT))
    # From a spool that Redis's outage kept full, or a clock behind that of the others.
    save(here.store, 10)
    assert len(facts(here).new_at) == 10
    assert decide(facts(here), OPTIONS, datetime.now(UTC)).train


def test_a_watermark_of_an_earlier_version_is_understood_until_the_next_round_ends(
    here: World,
) -> None:
    save(here.store, 6)
    note_start(here.store, PROJECT, datetime.now(UTC) + timedelta(seconds=1))
    here.store.set_watermark(PROJECT, "trained", MORNING + timedelta(seconds=4))
    assert len(facts(here).new_at) == 2
    save(here.store, 8)
    assert len(facts(here).new_at) == 4
    note_end(here.store, PROJECT, MORNING, here.store.mark(PROJECT))
    assert facts(here).new_at == ()
    save(here.store, 3, first=20)
    assert len(facts(here).new_at) == 3


def test_what_is_saved_again_while_the_facts_are_read_is_the_newest_of_them(here: World) -> None:
    save(here.store, 5)

    class Meanwhile(LoopReader):
        def _numbered(
            self, key: str, after: int, until: int | str, limit: int
        ) -> list[tuple[int, int]]:
            found = super()._numbered(key, after, until, limit)
            here.store.upsert(correction(1, 100, task=1, project=PROJECT))
            return found

    reader = Meanwhile(here.client)
    assert [row.annotation for row in reader.learnt_after(PROJECT, None, 10)] == [2, 3, 4, 5, 1]
    found = gather(reader, PROJECT, OPTIONS, running=False)
    assert len(found.new_at) == 5


def test_what_is_withdrawn_or_deleted_counts_no_more(here: World) -> None:
    save(here.store, 6)
    here.store.withdraw(PROJECT.annotation(1), revision(50), 1)
    here.store.delete(PROJECT.annotation(2))
    assert (facts(here).to_learn, len(facts(here).new_at)) == (4, 4)


def test_a_round_that_ran_leaves_nothing_new_and_one_that_failed_leaves_all(here: World) -> None:
    save(here.store, 6)
    begin, end = datetime(2026, 3, 1, 9, tzinfo=UTC), datetime(2026, 3, 1, 10, tzinfo=UTC)
    note_start(here.store, PROJECT, begin)
    note_end(here.store, PROJECT, end, mark=None)
    failed = facts(here)
    assert (failed.failed, failed.started_at, failed.ended_at) == (True, begin, end)
    assert len(failed.new_at) == 6
    later = end + timedelta(hours=1)
    note_start(here.store, PROJECT, end)
    note_end(here.store, PROJECT, later, here.store.mark(PROJECT))
    ran = facts(here)
    assert (ran.failed, ran.ended_at, ran.new_at) == (False, later, ())


def test_a_round_that_was_killed_counts_as_failed_and_one_that_runs_does_not(here: World) -> None:
    note_start(here.store, PROJECT, MORNING)
    assert (facts(here).failed, facts(here).ended_at) == (True, MORNING)
    running = facts(here, running=True)
    assert (running.failed, running.ended_at, running.running) == (False, None, True)


def test_quality_is_that_of_the_newest_window_against_those_before(here: World) -> None:
    save(here.store, 8, verdict=Verdict.ACCEPTED, edit_iou=1.0)
    save(here.store, 5, first=20, verdict=Verdict.DRAWN_BY_HAND)
    save(here.store, 3, first=30, edit_iou=0.25)
    assert facts(here).recent == Quality(4, 0.25, 0.4375)
    save(here.store, 1, first=33, edit_iou=0.25)
    found = facts(here)
    assert found.recent == Quality(4, 0.0, 0.25)
    assert found.before == Quality(8, 1.0, 1.0)
    decision = decide(found, OPTIONS, datetime.now(UTC))
    assert any("accept rate fell from 1.00 to 0.00" in one for one in decision.reasons)


def test_quality_needs_a_full_window_since_the_last_round(here: World) -> None:
    save(here.store, 8, verdict=Verdict.ACCEPTED, edit_iou=1.0)
    save(here.store, 3, first=10)
    note_end(here.store, PROJECT, MORNING, here.store.mark(PROJECT))
    save(here.store, 3, first=20)
    assert facts(here).recent is None
    save(here.store, 1, first=30)
    assert facts(here).recent is not None


def test_start_training_and_a_person_are_told_of(here: World) -> None:
    save(here.store, 4)
    here.store.set_watermark(PROJECT, "start_training", MORNING)
    assert facts(here).pressed_at == MORNING
    decision = decide(facts(here, by_hand=True), OPTIONS, datetime.now(UTC))
    assert decision.train
    assert len(decision.reasons) == 2


def test_thousands_of_corrections_are_read_in_pages(here: World) -> None:
    save(here.store, 2100)
    found = facts(here)
    assert len(found.new_at) == found.to_learn == 2100


def test_what_was_set_reaches_policy_and_snapshot(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "EVERY_CORRECTIONS": "7",
        "SCHEDULE": "0 2 * * *",
        "MAX_AGE_H": "0",
        "HELD_OUT_SHARE": "0.3",
        "SMALL_ROUND": "9",
    }.items():
        monkeypatch.setenv(f"SEGZERO_TRAIN_{name}", value)
    policy = policy_options(here.settings)
    assert (policy.every_corrections, policy.schedule, policy.max_age_h) == (7, "0 2 * * *", 0)
    snapshot = snapshot_options(here.settings, mark=3)
    assert (snapshot.held_out_share, snapshot.small, snapshot.seed) == (0.3, 9, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCHEDULE", "at night"),
        ("OLDER_SHARE", "0.8"),
        ("HELD_OUT_SHARE", "0"),
        ("MIN_CORRECTIONS", "0"),
        ("MAX_AGE_H", "inf"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    here: World, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SEGZERO_TRAIN_{name}", value)
    with pytest.raises(ConfigError, match=f"SEGZERO_TRAIN_{name}"):
        _ = here.settings
