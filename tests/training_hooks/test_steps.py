"""What the steps of a round say of its checkpoints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from training_hooks.grpo import Watcher
from training_hooks.steps import Step, mean_of, most_promising, steps_of


def _steps(*rewards: float) -> list[Step]:
    return [Step(n, 40, {"reward": reward}) for n, reward in enumerate(rewards, 1)]


def test_checkpoints_before_which_rewards_were_greatest_are_compared() -> None:
    rising_then_gone = _steps(*[0.2] * 4, *[0.6] * 4, *[0.7] * 4, *[0.1] * 4)
    paths = [Path(f"checkpoint-{n}") for n in (4, 8, 12, 16)]
    assert most_promising(paths, rising_then_gone, 2) == paths[1:3]
    assert most_promising(paths, rising_then_gone, 9) == paths
    assert most_promising([Path("last")], rising_then_gone, 2) == [Path("last")]


def test_a_mean_needs_a_whole_window() -> None:
    assert mean_of(_steps(0.1, 0.2, 0.3), "reward") is None
    assert mean_of(_steps(9.0, 0.1, 0.2, 0.3, 0.4), "reward") == pytest.approx(0.25)
    assert mean_of(_steps(*[0.1] * 5), "kl") is None


def _run(kls: list[float], most_kl: float | None, ends_at: int = 99) -> tuple[Watcher, int]:
    """Feed a watcher as the trainer does, until it asks for the end."""
    watcher = Watcher(lambda step: step.number < ends_at, most_kl)
    state = SimpleNamespace(global_step=0, max_steps=40, log_history=[])
    control = SimpleNamespace(should_training_stop=False)
    for kl in kls:
        state.global_step += 1
        logs: dict[str, Any] = {"reward": 0.5, "kl": kl}
        state.log_history.append({**logs, "step": state.global_step})
        watcher.on_log(None, state, control, logs)
        if control.should_training_stop:
            break
    assert [step.number for step in steps_of(state)] == list(range(1, state.global_step + 1))
    return watcher, state.global_step


def test_a_model_that_drifts_away_ends_its_round_early_and_counts_as_whole() -> None:
    watcher, ended = _run([0.1, 3.0, 0.1, 0.1, 2.0, 2.0, 2.0], most_kl=1.2)
    assert watcher.has_drifted
    assert not watcher.was_stopped
    assert ended == 5
    assert _run([9.0] * 6, most_kl=None)[1] == 6


def test_who_asks_for_the_end_gets_it_at_that_step() -> None:
    watcher, ended = _run([0.1] * 9, most_kl=1.0, ends_at=3)
    assert watcher.was_stopped
    assert ended == 3
