"""What this project adds to TRL's trainer: an order of prompts, the reward, a watcher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer

from segzero_ml.rewards import RewardParts
from training_hooks.checkpoints import drop_states
from training_hooks.judge import Case, Judge
from training_hooks.prompt_order import SPREAD, PromptOrder
from training_hooks.steps import Step, mean_of, step_of, steps_of

_log = logging.getLogger(__name__)

PARTS: Final = ("mask", "box", "point", "format", "no_repetition", "length")


class Trainer(GRPOTrainer):
    """TRL's, with an order of its own for the prompts."""

    spent: set[int]

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        if self.accelerator.num_processes > 1:  # each scores its own, and all need one order
            return super()._get_train_sampler(dataset)
        args: Any = self.args
        prompts: Any = self.train_dataset
        return PromptOrder(
            prompts=len(prompts),
            at_once=args.generation_batch_size // args.num_generations,
            rollouts=args.num_generations,
            passes=args.num_iterations * args.steps_per_generation,
            spent=self.spent,
            seed=args.seed,
        )


class Reward:
    """The judge as TRL calls it: a group of rollouts after the other, in one list.

    Attributes:
        spent: Prompts whose rollouts were all worth the same by mask, box and point.
    """

    __name__ = "masks"

    def __init__(self, judge: Judge, cases: Sequence[Case]) -> None:
        self._judge = judge
        self._cases = cases
        self.spent: set[int] = set()

    def __call__(
        self,
        completions: Sequence[Sequence[Mapping[str, str]]],
        lesson: Sequence[int],
        log_metric: Callable[[str, float], None] | None = None,
        **_: object,
    ) -> list[float | None]:
        """What each text earns, of the lesson at its place."""
        texts = [completion[0]["content"] for completion in completions]
        earned: dict[int, RewardParts] = {}
        for number in dict.fromkeys(lesson):
            group = [i for i, of in enumerate(lesson) if of == number]
            parts = self._judge.judge([texts[i] for i in group], self._cases[number])
            earned.update(zip(group, parts, strict=True))
            if all(_spread(parts, name) < SPREAD for name in ("mask", "box", "point")):
                self.spent.add(number)
        if log_metric is not None:
            for name in PARTS:
                values = [getattr(parts, name) for parts in earned.values()]
                log_metric(f"reward/{name}", sum(values) / len(values))
        return [earned[i].total for i in range(len(texts))]


def _spread(parts: Sequence[RewardParts], name: str) -> float:
    values = [float(getattr(one, name)) for one in parts]
    return max(values) - min(values)


class Watcher(TrainerCallback):
    """Tells of each step, and ends the round when asked to, or when the model drifts away.

    Args:
        on_step: Called after each step; False ends the round there.
        most_kl: Divergence from the base, in nats a token over a few steps, that ends it.

    Attributes:
        was_stopped: Whether it was asked to end.
        has_drifted: Whether it ended because of the divergence.
    """

    def __init__(self, on_step: Callable[[Step], bool], most_kl: float | None = None) -> None:
        self._on_step = on_step
        self._most_kl = most_kl
        self.was_stopped = self.has_drifted = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Called by the trainer after each step, and once at its end, without a reward."""
        if not logs or "reward" not in logs:
            return
        kl = mean_of(list(steps_of(state)), "kl")
        self.has_drifted = self._most_kl is not None and kl is not None and kl > self._most_kl
        if self.has_drifted:
            _log.warning("The model drifts away (KL %.2f): the round ends here.", kl)
        self.was_stopped = _any_says_stop(not self._on_step(step_of(state, logs)))
        if self.was_stopped or self.has_drifted:
            control.should_training_stop = True


class Frugal(TrainerCallback):
    """Leaves the state of the optimiser to the newest checkpoint: only from it a round goes on."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer when a checkpoint is whole."""
        if state.is_world_process_zero:
            drop_states(Path(args.output_dir), but_newest=True)


def _any_says_stop(stop: bool) -> bool:
    """Of several processes all must end at the same step: the first one decides."""
    if not torch.distributed.is_initialized():
        return stop
    said = [stop]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]
