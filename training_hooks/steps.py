"""What each step of a round brought, from what the trainer logs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """What a step brought.

    Args:
        number: From 1.
        total: Steps of the round.
        figures: Mean reward, its parts, share of prompts without any spread, and what TRL
            logs besides.
    """

    number: int
    total: int
    figures: Mapping[str, float]


def steps_of(state: Any) -> Iterator[Step]:
    """Every step of the round, also those before it was resumed."""
    for logs in state.log_history:
        if "reward" in logs:
            yield step_of(state, logs, int(logs["step"]))


def step_of(state: Any, logs: Mapping[str, Any], number: int | None = None) -> Step:
    """A step from a line of the trainer's log; the present one, where no number is given."""
    figures = {
        name: float(value)
        for name, value in logs.items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    }
    return Step(state.global_step if number is None else number, state.max_steps, figures)
