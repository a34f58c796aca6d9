"""How the bundled reasoner is made: a small Qwen2.5-VL, from scratch on plain scenes.

Two stages. First the vision tower alone learns to know, at each visual token, whether an
object is there, its colour, its shape and its box, said in the language model's own words
and numbers: an answer trained from nothing learns positions very slowly. Then the whole
model learns to answer, with that dense knowledge kept up beside it.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AttentionInterface,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
)

from segzero_ml.tiny.cache import SceneCache, load_or_draw
from segzero_ml.tiny.loop import LoopOptions, run_loop
from segzero_ml.tiny.reasoner import FRAME, build_config, build_model, build_tokenizer
from segzero_ml.tiny.reasoner_data import Batch, BatchMaker, DenseTargets
from segzero_ml.tiny.reasoner_forward import packed_attention, see
from segzero_ml.tiny.reasoner_losses import Trainee, answer_loss

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReasonerOptions:
    """What the recipe can be told.

    Args:
        scenes: Training scenes to draw; each is turned eight ways.
        seeing_batch: Scenes a step while the vision tower learns alone.
        batch: Scenes a step afterwards.
        requests: Requests a scene.
        compiled: Whether the language model is compiled: a minute once, then a third faster.
            Needs a C++ compiler; without one it runs as it is.
        seeing: The first stage's loop.
        answering: The second stage's loop; what the vision tower knows changes slowly in it.
    """

    scenes: int = 24_000
    seeing_batch: int = 24
    batch: int = 16
    requests: int = 5
    compiled: bool = True
    seeing: LoopOptions = field(default_factory=lambda: LoopOptions(1000, 1e-3))
    answering: LoopOptions = field(
        default_factory=lambda: LoopOptions(5000, 1e-3, slow_part="model.model.visual.")
    )


def train_reasoner(
    options: ReasonerOptions, cache_folder: Path
) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerFast]:
    """Trains the reasoner through both stages; resumes where checkpoints are.

    Returns:
        The trained model, with averaged weights, and its tokenizer.
    """
    # Before the first stage: its hours are not to be lost for want of a compiler.
    if options.compiled and not _choose_compiler():
        _log.warning("No C++ compiler was found: the language model is trained uncompiled.")
        options = replace(options, compiled=False)
    scenes = load_or_draw(cache_folder, options.scenes, FRAME)
    torch.manual_seed(options.seeing.seed)
    tokenizer = build_tokenizer()
    trainee = Trainee(build_model(build_config(tokenizer), tokenizer), tokenizer)
    AttentionInterface.register("packed", packed_attention)
    trainee.model.model.language_model.config._attn_implementation = "packed"
    seen = _seeing(trainee, scenes, tokenizer, options)
    answered = _answering(seen, scenes, tokenizer, options)
    return answered.model.cpu(), tokenizer


def _seeing(
    trainee: Trainee, scenes: SceneCache, tokenizer: PreTrainedTokenizerFast, o: ReasonerOptions
) -> Trainee:
    maker = BatchMaker(scenes, tokenizer, 0, o.seeing.seed)
    batches = _ahead(
        lambda i: _moved(maker.make(i, o.seeing_batch, with_text=False), o.seeing.device)
    )

    def step(index: int) -> tuple[Tensor, dict[str, float]]:
        batch = batches(index)
        tokens = see(trainee.model.model.visual, batch.patches)
        return trainee.dense_loss(tokens, batch.dense, _blur(index, o.seeing.steps))

    trained: Trainee = run_loop(trainee, step, o.seeing)
    return trained.requires_grad_(True)


def _answering(
    trainee: Trainee, scenes: SceneCache, tokenizer: PreTrainedTokenizerFast, o: ReasonerOptions
) -> Trainee:
    maker = BatchMaker(scenes, tokenizer, o.requests, o.answering.seed + 1)
    batches = _ahead(lambda i: _moved(maker.make(i, o.batch), o.answering.device))
    read: Any = trainee.model.model.language_model
    if o.compiled:
        read = torch.compile(read, dynamic=False)

    def step(index: int) -> tuple[Tensor, dict[str, float]]:
        batch = batches(index)
        blur = _blur(index, o.answering.steps)
        tokens = see(trainee.model.model.visual, batch.patches)
        answers, figures = answer_loss(trainee, read, tokens, batch, blur)
        dense, sights = trainee.dense_loss(tokens, batch.dense, blur)
        figures |= {name: sights[name] for name in ("colour", "shape", "off")}
        return answers + 0.2 * dense, figures

    trained: Trainee = run_loop(trainee, step, o.answering)
    return trained


def _choose_compiler() -> bool:
    """Tells torch which C++ compiler there is; False when there is none."""
    named = os.environ.get("CXX", "")
    if named and shutil.which(shlex.split(named)[0]):
        return True  # torch reads it by itself
    found = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
    if found is None:
        return False
    from torch._inductor import config  # it looks for g++ alone

    config.cpp.cxx = (None, found)
    return True


def _moved(batch: Batch, device: str) -> Batch:
    dense = DenseTargets(*(getattr(batch.dense, f.name).to(device) for f in fields(DenseTargets)))
    parts = ("patches", "input_ids", "labels", "weights", "positions")
    return replace(batch, dense=dense, **{name: getattr(batch, name).to(device) for name in parts})


def _blur(index: int, steps: int) -> float:
    """From 2.5 to 0.7 units of the frame over the first 80 % of a stage."""
    return 2.5 - 1.8 * min(1.0, index / (0.8 * steps))


def _ahead(make: Any) -> Any:
    """Makes the next step's batch in a thread while this step computes."""
    pool = ThreadPoolExecutor(1)
    waiting: dict[int, Any] = {}

    def get(index: int) -> Any:
        job = waiting.pop(index, None) or pool.submit(make, index)
        waiting[index + 1] = pool.submit(make, index + 1)
        return job.result()

    return get
