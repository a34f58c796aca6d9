"""What each step of a round brought, from what the trainer logs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

WINDOW: Final = 4
"""Steps over which figures are taken: each step has prompts of its own, easy ones or hard."""


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


def mean_of(steps: Sequence[Step], name: str) -> float | None:
    """Mean of a figure over the last steps; None where it was not logged in each of them."""
    values = [step.figures[name] for step in steps[-WINDOW:] if name in step.figures]
    return sum(values) / WINDOW if len(values) == WINDOW else None


def most_promising(checkpoints: Sequence[Path], steps: Sequence[Step], count: int) -> list[Path]:
    """The checkpoints before which rewards were greatest, oldest first.

    Args:
        checkpoints: Folders named `checkpoint-<step>`; others count as the round's end.
        steps: Those of the round.
        count: How many at most.
    """

    def reward(path: Path) -> float:
        number = path.name.rpartition("-")[2]
        until = [one for one in steps if not number.isdecimal() or one.number <= int(number)]
        rewards = [one.figures.get("reward", 0.0) for one in until[-WINDOW:]]
        return sum(rewards) / len(rewards) if rewards else 0.0

    kept = set(sorted(checkpoints, key=reward, reverse=True)[:count])
    return [path for path in checkpoints if path in kept]
