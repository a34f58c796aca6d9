"""One round of learning: GRPO on people's corrections, read top to bottom.

For each prompt (an image and a request) G answers are sampled. SAM 2 cuts what they point at,
and each answer earns what its masks are worth against the corrected ones
(`segzero_ml.rewards`). An answer's advantage is how far it lies above the mean of its group,
in standard deviations (DeepSeekMath, arXiv 2402.03300, equation 3; Seg-Zero, arXiv 2503.06520):

    A_i = (r_i - mean(r)) / std(r)

Tokens of answers with a positive advantage become likelier, the others less likely. Only a
LoRA adapter learns; base and segmenter stay as they are. TRL does the arithmetic.

Runs in a process of its own: it holds a GPU's memory, and may be killed at any step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from transformers import TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from segzero_ml.errors import DatasetError, ModelError
from segzero_ml.images import load_image
from segzero_ml.presets import Preset
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.prompts import (
    build_prompt,
    frame_of,
    normalise_request,
    prepare_image,
    size_seen,
)
from segzero_ml.rewards import RewardParts, Truth
from segzero_ml.segmenter import Segmenter
from segzero_ml.types import ImageSize, Rle
from training_hooks.judge import Case, Judge
from training_hooks.round_options import RoundOptions

PARTS = ("mask", "box", "point", "format", "no_repetition", "length")


@dataclass(frozen=True, slots=True)
class Lesson:
    """One prompt and what is true.

    Args:
        image: File of the image.
        size: Its upright size.
        request: What was asked.
        true_masks: The corrected masks; none means that nothing matches.
    """

    image: Path
    size: ImageSize
    request: str
    true_masks: tuple[Rle, ...]


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


@dataclass(frozen=True, slots=True)
class Trained:
    """What a round left.

    Args:
        checkpoints: Folders of adapters, oldest first; the last one is the round's end.
        steps: What each step brought.
        was_stopped: Somebody asked it to end early.
    """

    checkpoints: tuple[Path, ...]
    steps: tuple[Step, ...]
    was_stopped: bool


def train(
    lessons: Sequence[Lesson],
    preset: Preset,
    options: RoundOptions,
    folder: Path,
    on_step: Callable[[Step], bool] = lambda _: True,
) -> Trained:
    """Run a round; goes on from its last checkpoint if the folder holds one.

    Args:
        lessons: What is learned from.
        preset: The pair; its reasoner gets the adapter.
        options: How.
        folder: For checkpoints and logs.
        on_step: Called after each step; False ends the round there.

    Returns:
        Its checkpoints. There was a step at least.

    Raises:
        DatasetError: There are too few lessons for a step, or their truth is corrupt.
        WeightsError: The preset's weights cannot be loaded.
        ModelError: There is not enough memory, or no step was made.
    """
    prompts = prompts_per_step(len(lessons), options)
    reasoner = LocalReasoner.load(preset)
    segmenter = Segmenter.load(
        preset.segmenter, reasoner.model.device, revision=preset.segmenter_revision
    )
    cases = [_case(lesson, reasoner) for lesson in lessons]
    rows = [_row(number, lesson, reasoner) for number, lesson in enumerate(lessons)]
    watch = _Watch(on_step)
    trainer = GRPOTrainer(
        model=reasoner.model,
        processing_class=reasoner.processor,
        reward_funcs=[_Reward(Judge(segmenter, preset, options.weights), cases)],
        train_dataset=Dataset.from_list(rows),
        args=_config(preset, options, folder, prompts, reasoner.model.device.type == "cpu"),
        peft_config=LoraConfig(
            r=options.rank,
            lora_alpha=2 * options.rank,
            target_modules=options.target_modules,
            task_type="CAUSAL_LM",
        ),
        callbacks=[watch],
    )
    trainer.train(resume_from_checkpoint=bool(_checkpoints(folder)))
    if trainer.state.global_step < 1:  # TRL stops without a word when a batch is not full
        raise ModelError("The round made no step.", "Lower prompts_per_step.")
    trainer.save_model(str(folder / "last"))
    return Trained((*_checkpoints(folder), folder / "last"), tuple(watch.steps), watch.was_stopped)


def prompts_per_step(lessons: int, options: RoundOptions) -> int:
    """How many prompts a step takes: never more than there are.

    Raises:
        DatasetError: There are no lessons.
    """
    if lessons < 1:
        raise DatasetError("There is nothing to learn from.", "Correct some predictions first.")
    return min(options.prompts_per_step, lessons)


def _config(
    preset: Preset, options: RoundOptions, folder: Path, prompts: int, on_cpu: bool
) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=prompts * options.rollouts,
        num_generations=options.rollouts,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        max_completion_length=options.max_new_tokens or preset.max_new_tokens,
        temperature=options.temperature,
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=options.max_grad_norm,
        beta=options.kl,
        mask_truncated_completions=True,
        activation_checkpointing=not on_cpu,
        use_cpu=on_cpu,
        bf16=not on_cpu,
        seed=options.seed,
        logging_steps=1,
        save_strategy="steps",
        save_steps=options.save_every,
        report_to=["tensorboard"] if _has_tensorboard() else [],
        disable_tqdm=True,
    )


class _Reward:
    """The judge as TRL calls it: a group of rollouts after the other, in one list."""

    __name__ = "masks"

    def __init__(self, judge: Judge, cases: Sequence[Case]) -> None:
        self._judge = judge
        self._cases = cases

    def __call__(
        self,
        completions: Sequence[Sequence[Mapping[str, str]]],
        lesson: Sequence[int],
        log_metric: Callable[[str, float], None] | None = None,
        **_: object,
    ) -> list[float | None]:
        texts = [completion[0]["content"] for completion in completions]
        earned: dict[int, RewardParts] = {}
        for number in dict.fromkeys(lesson):
            group = [i for i, of in enumerate(lesson) if of == number]
            parts = self._judge.judge([texts[i] for i in group], self._cases[number])
            earned.update(zip(group, parts, strict=True))
        if log_metric is not None:
            for name in PARTS:
                values = [getattr(parts, name) for parts in earned.values()]
                log_metric(f"reward/{name}", sum(values) / len(values))
        return [earned[i].total for i in range(len(texts))]


class _Watch(TrainerCallback):
    """Tells of each step, and ends the round when asked to."""

    def __init__(self, on_step: Callable[[Step], bool]) -> None:
        self._on_step = on_step
        self.steps: list[Step] = []
        self.was_stopped = False

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any
    ) -> None:  # the trainer's own last line has no loss
        if not logs or "reward" not in logs:
            return
        figures = {
            name: float(value)
            for name, value in logs.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        step = Step(state.global_step, state.max_steps, figures)
        self.steps.append(step)
        if not self._on_step(step):
            self.was_stopped = control.should_training_stop = True


def _case(lesson: Lesson, reasoner: LocalReasoner) -> Case:
    def image() -> Image.Image:
        return load_image(lesson.image)

    truth = Truth(lesson.size, lesson.true_masks)
    kind = reasoner.preset.frame
    return Case(image, truth, frame_of(kind, size_seen(kind, lesson.size)))


def _row(number: int, lesson: Lesson, reasoner: LocalReasoner) -> dict[str, Any]:
    preset = reasoner.preset
    prompt = build_prompt(preset.prompt, normalise_request(lesson.request), reasoner.special_tokens)
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "image": prepare_image(load_image(lesson.image), preset.frame),
        "lesson": number,
    }


def _checkpoints(folder: Path) -> tuple[Path, ...]:
    found = folder.glob("checkpoint-*")
    return tuple(sorted(found, key=lambda path: int(path.name.rpartition("-")[2])))


def _has_tensorboard() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None
