"""When a round of training starts: a pure function of what is known and of what was set.

Any one of these asks for a round: enough new corrections, the age of the oldest of them, the
schedule, quality that falls, *Start training* in Label Studio, a person on the command line.
Four things forbid it whatever asks: a project that is gone, a round that runs, too few
corrections, and, unless a person asked, the pause after a round. Every decision says why.

*New* is what the store learnt after the last round began to read the corrections. An accepted
prediction teaches next to nothing, so it counts for quality alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Final

from segzero_ml.errors import ConfigError, InputError
from training_hooks.schedule import check_schedule, last_due, next_due

GONE: Final = "This project is no longer in Label Studio, or is hidden from the token's user."
"""Why there is no round for a project that is gone."""

_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """What was set for the start of rounds.

    Args:
        every_corrections: New corrections that start a round; 0: their number starts none.
        min_corrections: Corrections without which no round runs, whoever asks; 1 or more.
        min_new: New corrections without which neither age nor schedule starts a round.
        max_age_h: Hours that the oldest new correction may wait; 0: age starts none.
        schedule: Five fields as cron has them; empty: none.
        quality_drop: Fall of the accept rate or of the mean edit IoU that starts a round; 0:
            quality starts none.
        quality_window: Annotations of shown predictions over which both are taken.
        debounce_s: Seconds after a round in which the next starts only if a person asks.
        after_failure_s: The same after a round that failed or was refused.

    Raises:
        ConfigError: A value is out of its range.
    """

    every_corrections: int = 50
    min_corrections: int = 20
    min_new: int = 5
    max_age_h: float = 24.0
    schedule: str = ""
    quality_drop: float = 0.1
    quality_window: int = 50
    debounce_s: float = 300.0
    after_failure_s: float = 3600.0

    def __post_init__(self) -> None:
        least = {"min_corrections": 1, "min_new": 1, "quality_window": 1}
        for one in fields(self):
            value, floor = getattr(self, one.name), least.get(one.name, 0)
            if one.name != "schedule" and not (math.isfinite(value) and value >= floor):
                raise ConfigError(f"{one.name} must be {floor} or more, not {value}.")
        if self.quality_drop > 1:
            raise ConfigError("quality_drop must be from 0 to 1: it is a fall of a rate.")
        if self.schedule:
            check_schedule(self.schedule)


@dataclass(frozen=True, slots=True)
class Quality:
    """What annotators made of a number of shown predictions.

    Args:
        count: How many annotations.
        accept_rate: Share that was accepted as predicted, in [0, 1].
        mean_edit_iou: Mean overlap of the predictions with what became of them, in [0, 1];
            None where it is known of none.

    Raises:
        InputError: A value is out of its range.
    """

    count: int
    accept_rate: float
    mean_edit_iou: float | None

    def __post_init__(self) -> None:
        rates = [self.accept_rate, 0.0 if self.mean_edit_iou is None else self.mean_edit_iou]
        if self.count < 1 or not all(0 <= rate <= 1 for rate in rates):
            raise InputError("Quality needs at least one annotation, and rates from 0 to 1.")


@dataclass(frozen=True, slots=True)
class LoopFacts:
    """What is known of a project when it is asked whether a round shall start.

    Args:
        to_learn: Corrections to learn from in all, accepted predictions left out.
        new_at: When each new one of them was learnt of, the oldest first.
        recent: Quality of the newest shown predictions since the last round, a full window of
            them; None where there are not so many yet.
        before: Quality of those before; None where there are none.
        started_at: When the last round started, or None.
        ended_at: When the last round ended, whatever came of it, or None.
        failed: Whether the last round failed or was refused, which is to be looked at before
            the next.
        running: Whether a round runs, or waits to.
        gone: Whether the project is no longer in Label Studio.
        pressed_at: When *Start training* was pressed last, or None.
        by_hand: Whether a person asks right now.

    Raises:
        InputError: A time has no zone, they are not in order, or there are more new
            corrections than corrections.
    """

    to_learn: int
    new_at: tuple[datetime, ...] = ()
    recent: Quality | None = None
    before: Quality | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    failed: bool = False
    running: bool = False
    gone: bool = False
    pressed_at: datetime | None = None
    by_hand: bool = False

    def __post_init__(self) -> None:
        times = [*self.new_at, self.started_at, self.ended_at, self.pressed_at]
        if any(one is not None and one.utcoffset() is None for one in times):
            raise InputError("The facts of a project hold a time without its zone.")
        if list(self.new_at) != sorted(self.new_at):
            raise InputError("new_at must go from the oldest to the newest.")
        if not len(self.new_at) <= self.to_learn:
            raise InputError("There cannot be more new corrections than corrections.")


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a round starts.

    Attributes:
        train: Whether.
        reasons: What asks for a round, a sentence each; at least one when it starts.
        refusal: Why none starts; None when one does.
    """

    train: bool
    reasons: tuple[str, ...]
    refusal: str | None


def decide(facts: LoopFacts, options: PolicyOptions, now: datetime) -> Decision:
    """Say whether a round shall start, and why or why not.

    Args:
        facts: What is known of the project.
        options: What was set.
        now: With its time zone, in which the schedule is read.

    Raises:
        InputError: `now` has no zone.
    """
    if now.utcoffset() is None:
        raise InputError("The present must be a time with its zone.")
    asked = tuple(_by_people(facts, options, now))
    reasons = asked + tuple(_by_itself(facts, options, now))
    refusal = _forbidden(facts, options)
    if refusal is None and not asked:
        refusal = _pause(facts, options, now) if reasons else _nothing_asks(facts, options, now)
    return Decision(refusal is None, reasons, refusal)


def _by_people(facts: LoopFacts, options: PolicyOptions, now: datetime) -> Iterator[str]:
    if facts.by_hand:
        yield "It was started by hand."
    pressed = facts.pressed_at
    if pressed is not None and not _is_served(pressed, facts, options, now):
        yield f"Start training was pressed at {_shown(pressed)}."


def _is_served(pressed: datetime, facts: LoopFacts, options: PolicyOptions, now: datetime) -> bool:
    """Whether a round answers to it: one that began after it, or as its second click.

    What lies ahead tells of a clock that was set back. A click there may be older than any
    round, and must not start one after the other; a start there says nothing of a click.
    """
    if pressed > now:
        return facts.ended_at is not None
    if facts.started_at is None or facts.started_at > now:
        return False
    second_click = facts.started_at + timedelta(seconds=options.debounce_s)
    if facts.ended_at is not None and facts.ended_at >= facts.started_at:
        second_click = min(second_click, facts.ended_at)
    return pressed <= max(facts.started_at, second_click)


def _by_itself(facts: LoopFacts, options: PolicyOptions, now: datetime) -> Iterator[str]:
    new = len(facts.new_at)
    if 0 < options.every_corrections <= new:
        yield f"There are {new} new corrections; {options.every_corrections} start a round."
    if new >= options.min_new:
        waited = max(now - facts.new_at[0], timedelta(0))
        if options.max_age_h and waited >= options.max_age_h * _HOUR:
            yield (
                f"The oldest of {new} new corrections has waited {waited / _HOUR:.1f} h; "
                f"{options.max_age_h:g} h start a round."
            )
        if options.schedule and (due := _due(facts, options, now)):
            yield f"The schedule {options.schedule} was due at {_shown(due)}."
    yield from _falls(facts, options)


def _due(facts: LoopFacts, options: PolicyOptions, now: datetime) -> datetime | None:
    """When the schedule was due last, if there was enough to train on, and no round since."""
    due = last_due(options.schedule, now)
    since = [facts.new_at[options.min_new - 1], facts.started_at]
    # One that lies ahead tells of a clock that was set back: nobody knows when it was.
    known = [one for one in since if one is not None and one <= now]
    return due if all(one <= due for one in known) else None


def _falls(facts: LoopFacts, options: PolicyOptions) -> Iterator[str]:
    recent, before = facts.recent, facts.before
    if not options.quality_drop or recent is None or before is None:
        return
    if min(recent.count, before.count) < options.quality_window:
        return
    pairs = {
        "accept rate": (before.accept_rate, recent.accept_rate),
        "mean edit IoU": (before.mean_edit_iou, recent.mean_edit_iou),
    }
    for name, (then, today) in pairs.items():
        if then is not None and today is not None and then - today >= options.quality_drop:
            yield (
                f"The {name} fell from {then:.2f} to {today:.2f} over the last "
                f"{recent.count} predictions shown; a fall of {options.quality_drop:g} starts "
                "a round."
            )


def _forbidden(facts: LoopFacts, options: PolicyOptions) -> str | None:
    if facts.gone:
        return GONE
    if facts.running:
        return "A round of this project is running or waiting already."
    if facts.to_learn < options.min_corrections:
        missing = options.min_corrections - facts.to_learn
        return (
            f"A round needs at least {options.min_corrections} corrections to learn from, and "
            f"there are {facts.to_learn}: {missing} more (accepted predictions do not count)."
        )
    return None


def _pause(facts: LoopFacts, options: PolicyOptions, now: datetime) -> str | None:
    if facts.ended_at is None:
        return None
    pause = options.debounce_s
    if facts.failed:
        pause = max(pause, options.after_failure_s)
    left_s = pause - (now - facts.ended_at).total_seconds()
    # An end that lies ahead tells of a clock that was set back: no reason to wait for it.
    if not 0 < left_s <= pause:
        return None
    what = "failed" if facts.failed else "ended"
    return f"The last round {what} at {_shown(facts.ended_at)}: a pause of {left_s:.0f} s is left."


def _nothing_asks(facts: LoopFacts, options: PolicyOptions, now: datetime) -> str:
    return "Nothing asks for a round: " + "; ".join(_distances(facts, options, now)) + "."


def _distances(facts: LoopFacts, options: PolicyOptions, now: datetime) -> Iterator[str]:
    """How far each trigger is from asking."""
    new = len(facts.new_at)
    of = f" of {options.every_corrections}" if options.every_corrections else ""
    yield f"{new}{of} new corrections"
    has_clock = options.max_age_h or options.schedule
    if has_clock and new < options.min_new:
        yield f"age and schedule wait for {options.min_new} of them"
    elif options.max_age_h:
        waited = max(now - facts.new_at[0], timedelta(0))
        yield f"the oldest has waited {waited / _HOUR:.1f} of {options.max_age_h:g} h"
    if options.schedule:
        yield f"the schedule is due next at {_shown(next_due(options.schedule, now))}"
    if options.quality_drop:
        yield (
            "quality has not fallen"
            if facts.recent
            else "too few new annotations to tell of quality"
        )


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %z}"
