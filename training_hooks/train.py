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

import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from trl.trainer.grpo_config import GRPOConfig

from segzero_ml.errors import DatasetError, ModelError
from segzero_ml.images import load_image
from segzero_ml.presets import Preset
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.prompts import (
    build_prompt,
    fit_image,
    frame_of,
    normalise_request,
    size_seen,
)
from segzero_ml.rewards import Truth
from segzero_ml.segmenter import Segmenter
from segzero_ml.types import ImageSize, Rle
from training_hooks.checkpoints import COLD_START, checkpoints, discard_broken
from training_hooks.cold_start import AT_ONCE, shown, teach
from training_hooks.grpo import Frugal, Reward, Trainer, Watcher
from training_hooks.judge import Case, Judge
from training_hooks.round_options import RoundOptions
from training_hooks.steps import Step, steps_of
from training_hooks.trackers import curves, trackers


@dataclass(frozen=True, slots=True)
class Lesson:
    """One prompt and what is true.

    Args:
        image: File of the image.
        size: Its upright size.
        request: What was asked.
        true_masks: The corrected masks; none means that nothing matches.
        is_rehearsed: Whether it is no correction, but something known before.
    """

    image: Path
    size: ImageSize
    request: str
    true_masks: tuple[Rle, ...]
    is_rehearsed: bool = False


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
    on_shown: Callable[[int, int], None] = lambda _, __: None,
) -> Trained:
    """Run a round; goes on from its last checkpoint if the folder holds one.

    Args:
        lessons: What is learned from.
        preset: The pair; its reasoner gets the adapter.
        options: How.
        folder: For checkpoints and logs.
        on_step: Called after each step; False ends the round there.
        on_shown: Called after each batch of the cold start with how many are done, and about how
            many there are; what it raises ends the round there.

    Returns:
        Its checkpoints. There was a step at least.

    Raises:
        DatasetError: There are too few lessons for a step, or their truth is corrupt.
        WeightsError: The preset's weights cannot be loaded.
        ModelError: There is not enough memory, or no step was made.
    """
    prompts = prompts_per_step(len(lessons), options, _processes())
    if torch.cuda.is_available():  # of several processes each has a GPU of its own
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if os.environ.get("RANK", "0") == "0":
        discard_broken(folder)
    reasoner = LocalReasoner.load(preset)
    segmenter = Segmenter.load(
        preset.segmenter, reasoner.model.device, revision=preset.segmenter_revision
    )
    cases = [_case(lesson, reasoner) for lesson in lessons]
    watch = Watcher(on_step, options.most_kl)
    judge = Judge(segmenter, preset, options.weights)
    reward = Reward(judge, cases)
    trainer = Trainer(
        model=reasoner.model,
        processing_class=reasoner.processor,
        reward_funcs=[reward],
        train_dataset=_rows(lessons, reasoner),
        args=_config(preset, options, folder, prompts, reasoner.model.device.type == "cpu"),
        peft_config=LoraConfig(
            r=options.rank,
            lora_alpha=2 * options.rank,
            target_modules=options.target_modules,
            task_type="CAUSAL_LM",
        ),
        callbacks=[watch, Frugal(), *trackers()],
    )
    trainer.spent = reward.spent
    saved = checkpoints(folder)
    if options.cold_start and not saved:
        batches = math.ceil(len(lessons) / AT_ONCE) * (1 + options.cold_start)
        done = itertools.count(1)

        def between() -> None:
            on_shown(min(next(done), batches), batches)

        requests = [one.request for one in lessons]
        known = [one.is_rehearsed for one in lessons]
        answers = shown(reasoner, judge, cases, requests, known, options, between)
        model: Any = trainer.model
        teach(model, reasoner, answers, options, between)
        if trainer.is_world_process_zero():
            model.save_pretrained(folder / COLD_START)
    trainer.train(resume_from_checkpoint=str(saved[-1]) if saved else None)
    if trainer.state.global_step < 1:  # TRL stops without a word when a batch is not full
        raise ModelError("The round made no step.", "Lower prompts_per_step.")
    trainer.save_model(str(folder / "last"))
    steps = tuple(steps_of(trainer.state))
    return Trained((*checkpoints(folder), folder / "last"), steps, watch.was_stopped)


def prompts_per_step(lessons: int, options: RoundOptions, processes: int = 1) -> int:
    """How many prompts a step takes: never more than there are.

    Args:
        lessons: How many there are.
        options: How many are wanted, with how many rollouts each.
        processes: That train together; each takes as many rollouts as the others.

    Raises:
        DatasetError: There are no lessons, or too few for so many processes.
    """
    if lessons < 1:
        raise DatasetError("There is nothing to learn from.", "Correct some predictions first.")
    each = processes // math.gcd(processes, options.rollouts)  # prompts that divide evenly
    most = min(max(options.prompts_per_step, each), lessons)
    if most < each:
        raise DatasetError(
            f"{lessons} requests are too few for {processes} processes to learn from together.",
            "Correct more, or train on fewer GPUs (CUDA_VISIBLE_DEVICES).",
        )
    return most // each * each


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _config(
    preset: Preset, options: RoundOptions, folder: Path, prompts: int, on_cpu: bool
) -> GRPOConfig:
    answers = prompts * options.rollouts // _processes()  # of this process
    at_once = math.gcd(answers, options.rollouts_at_once)
    return GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=answers // at_once,
        num_generations=options.rollouts,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        max_completion_length=options.max_new_tokens or preset.max_new_tokens,
        temperature=options.temperature,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        max_grad_norm=options.max_grad_norm,
        beta=options.kl,
        loss_type=options.loss,
        scale_rewards=options.scale_rewards,
        mask_truncated_completions=options.mask_truncated,
        activation_checkpointing=not on_cpu,
        use_cpu=on_cpu,
        bf16=not on_cpu,
        seed=options.seed,
        logging_steps=1,
        save_strategy="steps",
        save_steps=options.save_every,
        report_to=curves(),  # to others by `trackers`
        run_name=folder.name,
        disable_tqdm=True,
    )


def _case(lesson: Lesson, reasoner: LocalReasoner) -> Case:
    def image() -> Image.Image:
        return load_image(lesson.image)

    truth = Truth(lesson.size, lesson.true_masks)
    kind = reasoner.preset.frame
    return Case(image, truth, frame_of(kind, size_seen(kind, lesson.size)))


def _rows(lessons: Sequence[Lesson], reasoner: LocalReasoner) -> Dataset:
    return Dataset.from_list(
        [_row(number, lesson, reasoner) for number, lesson in enumerate(lessons)]
    )


def _row(number: int, lesson: Lesson, reasoner: LocalReasoner) -> dict[str, Any]:
    preset = reasoner.preset
    prompt = build_prompt(preset.prompt, normalise_request(lesson.request), reasoner.special_tokens)
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "image": fit_image(load_image(lesson.image), preset.frame),
        "lesson": number,
    }
