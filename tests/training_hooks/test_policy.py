"""When a round starts: every trigger, every refusal, and what holds for all facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzero_ml.errors import ConfigError, InputError
from training_hooks.policy import Decision, LoopFacts, PolicyOptions, Quality, decide

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
OPTIONS = PolicyOptions(quality_window=10)
"""50 corrections start a round; 20 are needed; 24 h; a fall of 0.1; a pause of 300 s."""


def ago(hours: float = 0, seconds: float = 0) -> datetime:
    return NOW - timedelta(hours=hours, seconds=seconds)


def facts(new: int = 0, to_learn: int = 100, oldest_h: float = 1.0, **others: object) -> LoopFacts:
    """So many new corrections, all learnt of so many hours ago."""
    return LoopFacts(to_learn, (ago(oldest_h),) * new, **others)  # type: ignore[arg-type]


def quality(accept_rate: float, mean_edit_iou: float | None = 0.8, count: int = 10) -> Quality:
    return Quality(count, accept_rate, mean_edit_iou)


def starts(decision: Decision, *words: str) -> bool:
    """Whether a round starts, for a reason that holds these words."""
    return decision.train and any(all(word in one for word in words) for one in decision.reasons)


def test_nothing_new_starts_nothing_and_says_how_far_each_trigger_is() -> None:
    options = replace(OPTIONS, schedule="0 2 * * *")
    decision = decide(facts(new=12), options, NOW)
    assert not decision.train
    assert decision.reasons == ()
    assert decision.refusal == (
        "Nothing asks for a round: 12 of 50 new corrections; the oldest has waited 1.0 of 24 h; "
        "the schedule is due next at 2026-03-05 02:00 +0000; too few new annotations to tell of "
        "quality."
    )


def test_enough_new_corrections_start_a_round() -> None:
    assert not decide(facts(new=49), OPTIONS, NOW).train
    assert starts(decide(facts(new=50), OPTIONS, NOW), "50 new corrections")


def test_old_corrections_start_a_round() -> None:
    assert not decide(facts(new=5, oldest_h=23.9), OPTIONS, NOW).train
    assert starts(decide(facts(new=5, oldest_h=24), OPTIONS, NOW), "24.0 h")


def test_a_single_old_correction_does_not_take_the_machine_for_a_round() -> None:
    decision = decide(facts(new=4, oldest_h=1000), OPTIONS, NOW)
    assert not decision.train
    assert "wait for 5" in str(decision.refusal)


def test_the_schedule_starts_a_round_once() -> None:
    options = replace(OPTIONS, schedule="0 2 * * *", max_age_h=0)
    night = facts(new=5, oldest_h=20)
    assert starts(decide(night, options, NOW), "0 2 * * *", "2026-03-04 02:00")
    after = replace(night, started_at=ago(9.9), ended_at=ago(9))
    assert not decide(after, options, NOW).train
    assert starts(decide(after, options, NOW + timedelta(days=1)), "2026-03-05 02:00")


def test_what_came_after_the_schedule_was_due_waits_for_the_next_time() -> None:
    options = replace(OPTIONS, schedule="0 2 * * *")
    assert not decide(facts(new=20, oldest_h=9.9), options, NOW).train
    four_before = (ago(20),) * 4 + (ago(1),) * 10  # five are needed
    assert not decide(LoopFacts(100, four_before), options, NOW).train


def test_a_schedule_that_was_missed_is_made_up_for() -> None:
    options = replace(OPTIONS, schedule="0 2 * * mon", max_age_h=0)
    assert starts(decide(facts(new=5, oldest_h=24 * 3), options, NOW), "2026-03-02 02:00")


def test_a_falling_accept_rate_starts_a_round() -> None:
    fallen = facts(new=10, recent=quality(0.6), before=quality(0.75))
    assert starts(decide(fallen, OPTIONS, NOW), "accept rate fell from 0.75 to 0.60")
    steady = facts(new=10, recent=quality(0.7), before=quality(0.75))
    assert not decide(steady, OPTIONS, NOW).train


def test_a_falling_edit_iou_starts_a_round() -> None:
    fallen = facts(new=10, recent=quality(0.5, 0.6), before=quality(0.5, 0.8))
    assert starts(decide(fallen, OPTIONS, NOW), "mean edit IoU fell from 0.80 to 0.60")
    unknown = facts(new=10, recent=quality(0.5, 0.6), before=quality(0.5, None))
    assert not decide(unknown, OPTIONS, NOW).train


@pytest.mark.parametrize("which", ["recent", "before"])
def test_quality_over_less_than_a_window_tells_nothing(which: str) -> None:
    recent, before = quality(0.1), quality(0.9)
    known = facts(new=10, recent=recent, before=before)
    assert decide(known, OPTIONS, NOW).train
    few = replace(recent if which == "recent" else before, count=9)
    assert not decide(replace(known, **{which: few}), OPTIONS, NOW).train  # type: ignore[arg-type]


def test_rising_quality_starts_nothing() -> None:
    risen = facts(new=10, recent=quality(0.9, 0.9), before=quality(0.2, 0.2))
    decision = decide(risen, OPTIONS, NOW)
    assert not decision.train
    assert "quality has not fallen" in str(decision.refusal)


def test_start_training_starts_a_round_without_anything_new() -> None:
    assert starts(decide(facts(pressed_at=ago(0.1)), OPTIONS, NOW), "Start training was pressed")


def test_start_training_is_served_by_the_round_that_follows_it() -> None:
    pressed = facts(pressed_at=ago(2), started_at=ago(1.9), ended_at=ago(1))
    assert not decide(pressed, OPTIONS, NOW).train


def test_a_second_click_right_after_the_start_is_the_same_wish() -> None:
    twice = facts(started_at=ago(1), pressed_at=ago(1, -10), ended_at=ago(0.5))
    assert not decide(twice, OPTIONS, NOW).train
    later = replace(twice, pressed_at=ago(1, -400))  # the round ran; its snapshot was taken
    assert decide(later, OPTIONS, NOW).train


def test_a_click_after_a_round_that_ended_at_once_counts() -> None:
    ended = facts(started_at=ago(0, 100), ended_at=ago(0, 90), failed=True, pressed_at=ago(0, 80))
    assert decide(ended, OPTIONS, NOW).train


def test_a_person_on_the_command_line_starts_a_round_without_anything_new() -> None:
    assert starts(decide(facts(by_hand=True), OPTIONS, NOW), "by hand")


def test_who_asks_need_not_wait_for_the_pause_but_what_starts_by_itself_does() -> None:
    just_ended = facts(new=60, started_at=ago(1), ended_at=ago(0, 100))
    decision = decide(just_ended, OPTIONS, NOW)
    assert not decision.train
    assert "a pause of 200 s is left" in str(decision.refusal)
    assert decision.reasons
    assert decide(replace(just_ended, by_hand=True), OPTIONS, NOW).train
    assert decide(replace(just_ended, pressed_at=ago()), OPTIONS, NOW).train
    assert decide(just_ended, OPTIONS, NOW + timedelta(seconds=200)).train


def test_a_failed_round_is_not_tried_again_at_once() -> None:
    failed = facts(new=60, started_at=ago(1), ended_at=ago(0.5), failed=True)
    assert "failed" in str(decide(failed, OPTIONS, NOW).refusal)
    assert decide(replace(failed, failed=False), OPTIONS, NOW).train
    assert decide(failed, OPTIONS, NOW + timedelta(hours=0.5)).train


def test_a_clock_that_was_set_back_does_not_stop_rounds_for_ever() -> None:
    ahead = facts(new=60, oldest_h=-24, started_at=ago(-24), ended_at=ago(-23))
    assert decide(ahead, OPTIONS, NOW).train


def test_a_click_that_lies_ahead_does_not_start_one_round_after_the_other() -> None:
    ahead = facts(pressed_at=ago(-24), started_at=ago(0, 100), ended_at=ago(0, 10))
    assert not decide(ahead, OPTIONS, NOW).train
    # Nor where the clock was set back while the round ran.
    ahead = facts(pressed_at=ago(-23.5), started_at=ago(-23.4), ended_at=ago(0, 10))
    assert not decide(ahead, OPTIONS, NOW).train
    assert decide(replace(ahead, pressed_at=ago(0, 5)), OPTIONS, NOW).train
    # Where no round ever ran, none can have answered to it.
    assert decide(facts(pressed_at=ago(-24)), OPTIONS, NOW).train


def test_a_start_that_lies_ahead_answers_to_no_click_and_keeps_no_schedule() -> None:
    ahead = facts(started_at=ago(-24), ended_at=ago(-23), pressed_at=ago(0, 10))
    assert starts(decide(ahead, OPTIONS, NOW), "Start training was pressed")
    options = replace(OPTIONS, schedule="0 2 * * *", max_age_h=0)
    night = facts(new=5, oldest_h=20, started_at=ago(-24), ended_at=ago(-23))
    assert starts(decide(night, options, NOW), "0 2 * * *")
    # What was learnt by a clock that went ahead waits no longer than the rest.
    assert starts(decide(facts(new=5, oldest_h=-24), options, NOW), "0 2 * * *")
    after = facts(new=5, oldest_h=-24, started_at=ago(0, 100), ended_at=ago(0, 50))
    assert not decide(after, options, NOW).train


def test_a_project_that_is_gone_gets_no_round_whoever_asks() -> None:
    gone = facts(new=100, oldest_h=100, gone=True, by_hand=True, pressed_at=ago())
    decision = decide(gone, OPTIONS, NOW)
    assert not decision.train
    assert "no longer in Label Studio" in str(decision.refusal)


def test_the_minimum_is_stated_when_it_refuses() -> None:
    decision = decide(facts(new=12, to_learn=12, by_hand=True), OPTIONS, NOW)
    assert not decision.train
    assert decision.reasons == ("It was started by hand.",)
    for part in ("at least 20", "there are 12", "8 more"):
        assert part in str(decision.refusal)


def test_what_is_set_to_zero_starts_nothing() -> None:
    off = PolicyOptions(every_corrections=0, max_age_h=0, quality_drop=0, quality_window=10)
    everything = facts(new=100, oldest_h=999, recent=quality(0), before=quality(1))
    decision = decide(everything, off, NOW)
    assert not decision.train
    assert decision.refusal == "Nothing asks for a round: 100 new corrections."
    assert decide(replace(everything, by_hand=True), off, NOW).train


@pytest.mark.parametrize(
    "wrong",
    [
        {"every_corrections": -1},
        {"min_corrections": 0},
        {"min_new": 0},
        {"max_age_h": float("nan")},
        {"quality_drop": 1.1},
        {"quality_window": 0},
        {"debounce_s": float("inf")},
        {"schedule": "now and then"},
    ],
)
def test_options_out_of_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        replace(OPTIONS, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"to_learn": 1, "new_at": (NOW, NOW)},
        {"to_learn": 9, "new_at": (NOW, ago(1))},
        {"to_learn": 9, "pressed_at": NOW.replace(tzinfo=None)},
    ],
)
def test_facts_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        LoopFacts(**wrong)  # type: ignore[arg-type]


moments = st.datetimes(datetime(2026, 2, 1), datetime(2026, 4, 1), timezones=st.just(UTC))
rates = st.floats(0, 1)
qualities = st.builds(Quality, st.integers(1, 30), rates, st.none() | rates)


@st.composite
def any_facts(draw: st.DrawFn) -> LoopFacts:
    new = sorted(draw(st.lists(moments, max_size=60)))
    return LoopFacts(
        to_learn=len(new) + draw(st.integers(0, 60)),
        new_at=tuple(new),
        recent=draw(st.none() | qualities),
        before=draw(st.none() | qualities),
        started_at=draw(st.none() | moments),
        ended_at=draw(st.none() | moments),
        failed=draw(st.booleans()),
        running=draw(st.booleans()),
        pressed_at=draw(st.none() | moments),
        by_hand=draw(st.booleans()),
    )


any_options = st.builds(
    PolicyOptions,
    every_corrections=st.integers(0, 60),
    min_corrections=st.integers(1, 60),
    min_new=st.integers(1, 60),
    max_age_h=st.floats(0, 1000),
    schedule=st.sampled_from(["", "0 2 * * *", "*/5 * * * *", "0 0 29 2 *"]),
    quality_drop=st.floats(0, 1),
    quality_window=st.integers(1, 30),
    debounce_s=st.floats(0, 1e6),
    after_failure_s=st.floats(0, 1e6),
)


@given(any_facts(), any_options, moments)
def test_whatever_the_facts_a_decision_says_why_or_why_not(
    known: LoopFacts, options: PolicyOptions, now: datetime
) -> None:
    decision = decide(known, options, now)
    assert decision == decide(known, options, now)
    assert decision.train == (decision.refusal is None)
    if decision.train:
        assert decision.reasons
    else:
        assert decision.refusal
    for sentence in (*decision.reasons, decision.refusal or "It starts."):
        assert sentence[0].isupper()
        assert sentence.endswith((".", ")."))


@given(any_facts(), any_options, moments)
def test_no_round_starts_while_one_runs(
    known: LoopFacts, options: PolicyOptions, now: datetime
) -> None:
    decision = decide(replace(known, running=True), options, now)
    assert not decision.train
    assert "running" in str(decision.refusal)


@given(any_facts(), any_options, moments)
def test_no_round_starts_below_the_minimum_and_the_message_states_it(
    known: LoopFacts, options: PolicyOptions, now: datetime
) -> None:
    decision = decide(replace(known, running=False), options, now)
    if known.to_learn < options.min_corrections:
        assert not decision.train
        assert f"at least {options.min_corrections} corrections" in str(decision.refusal)


@given(any_facts(), any_options, moments)
def test_a_person_always_gets_a_round_unless_one_runs_or_there_is_too_little(
    known: LoopFacts, options: PolicyOptions, now: datetime
) -> None:
    decision = decide(replace(known, by_hand=True), options, now)
    assert decision.train == (not known.running and known.to_learn >= options.min_corrections)


@given(any_facts(), any_options, moments, st.floats(0, 1e6))
def test_within_the_pause_nothing_starts_by_itself(
    known: LoopFacts, options: PolicyOptions, now: datetime, since_s: float
) -> None:
    ended = replace(
        known, by_hand=False, pressed_at=None, ended_at=now - timedelta(seconds=since_s)
    )
    if since_s < options.debounce_s - 1e-3:
        assert not decide(ended, options, now).train


@given(any_facts(), any_options, moments)
def test_more_new_corrections_never_take_a_round_back(
    known: LoopFacts, options: PolicyOptions, now: datetime
) -> None:
    before = decide(known, options, now)
    one_more = replace(
        known, to_learn=known.to_learn + 1, new_at=tuple(sorted((*known.new_at, now)))
    )
    if before.train and not any("schedule" in reason for reason in before.reasons):
        assert decide(one_more, options, now).train
