"""Follows a project's round of training from its trigger to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

from backend.demo.processes import ProcessError
from backend.learning.folders import loop_name
from backend.learning.round_state import Phase, RoundState, read_state
from backend.redis_access import open_redis
from backend.settings import Settings
from segzero_ml.errors import StoreError

TRIGGER_S: Final = 300.0
"""Longest wait for a round to begin once its corrections are submitted."""

_LOOK_S: Final = 2.0
_MOST_AWAY_S: Final = 120.0


def newest_round(settings: Settings, project: int) -> RoundState | None:
    """A project's newest round, running or over; None where there was none.

    Raises:
        ConfigError: There is no Redis.
        StoreError: Redis does not answer.
    """
    with closing(open_redis(settings)) as redis:
        return read_state(redis, loop_name(settings, project))


def follow(
    settings: Settings,
    project: int,
    say: Callable[[str], None],
    after: RoundState | None = None,
    trigger_s: float = TRIGGER_S,
) -> RoundState:
    """Wait until a round begins by itself, and then until it is over.

    Args:
        settings: Where Redis is.
        project: Which project.
        say: Called with what is new.
        after: An earlier round, which does not count.
        trigger_s: Longest wait for the beginning, in seconds.

    Returns:
        The round as it ended.

    Raises:
        ProcessError: No round began in time, or Redis went away for good.
    """
    give_up: float | None = time.monotonic() + trigger_s
    said = ""
    while True:
        state = _patient(settings, project)
        if state is not None and (after is None or state.job != after.job):
            give_up = None
            if (text := describe(state)) != said:
                say(text)
                said = text
            if state.phase.is_over:
                return state
        elif give_up is not None and time.monotonic() > give_up:
            raise ProcessError(
                f"No round of training began within {trigger_s:.0f} s.",
                "segzero status shows what became of the corrections.",
            )
        time.sleep(_LOOK_S)


def describe(state: RoundState) -> str:
    """Where a round is, in a line."""
    if state.phase.is_over:
        return f"{state.phase}: {state.text}"
    if state.phase is Phase.COLD_START:
        return "cold start: the corrected boxes and points are shown"
    if state.phase is Phase.TRAINING and state.steps:
        reward = state.figures.get("reward")
        shown = "" if reward is None else f", mean reward {reward:.2f}"
        return f"training: step {state.step} of {state.steps}{shown}"
    return f"{state.phase}"


def _patient(settings: Settings, project: int) -> RoundState | None:
    """The newest round; Redis may be restarted meanwhile."""
    give_up = time.monotonic() + _MOST_AWAY_S
    while True:
        try:
            return newest_round(settings, project)
        except StoreError:
            if time.monotonic() > give_up:
                raise
            time.sleep(_LOOK_S)
