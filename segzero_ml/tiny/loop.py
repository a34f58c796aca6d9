"""The training loop both recipes share: schedule, averaging, checkpoints, resume, progress."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

Step = Callable[[int], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class LoopOptions:
    """How to train.

    Args:
        steps: Optimizer steps.
        learning_rate: Peak; linear warm-up over the first 4 %, cosine to 2 % of it.
        weight_decay: AdamW's, on matrices only.
        seed: Of everything.
        checkpoint: File to save to and to resume from; None keeps nothing.
        save_every: Steps between checkpoints.
        average: Decay of the running average of the weights.
        clip: Largest norm of the gradient.
        log_every: Steps between printed lines.
        slow_part: Start of the names of parameters that learn more slowly; "" for none.
        slow_rate: Their share of the learning rate.
        device: Where the model is trained: `cpu` or `cuda`.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    seed: int = 0
    checkpoint: Path | None = None
    save_every: int = 250
    average: float = 0.995
    clip: float = 1.0
    log_every: int = 50
    slow_part: str = ""
    slow_rate: float = 0.3
    device: str = "cpu"


def run_loop(model: Any, step: Step, options: LoopOptions) -> Any:
    """Trains in place under bfloat16 autocast.

    Args:
        model: The module to train; it is moved to the options' device.
        step: From the step's number to its loss and the figures to show.
        options: How to train.

    Returns:
        A copy of the model with the averaged weights.
    """
    model.to(options.device)
    averaged = copy.deepcopy(model).requires_grad_(False).eval()
    optimizer = _optimizer(model, options)
    first = _resume(model, averaged, optimizer, options.checkpoint)
    model.train()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("Training", total=options.steps, completed=first)
        seen: dict[str, float] = {}
        for index in range(first, options.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["share"] * _rate(index, options)
            with torch.autocast(torch.device(options.device).type, torch.bfloat16):
                loss, figures = step(index)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            optimizer.step()
            _average(averaged, model, min(options.average, (1 + index) / (10 + index)))
            for name, value in {"loss": float(loss.detach()), **figures}.items():
                seen[name] = 0.95 * seen[name] + 0.05 * value if name in seen else value
            line = "  ".join(f"{name} {value:.3f}" for name, value in seen.items())
            progress.update(bar, advance=1, description=line)
            if (index + 1) % options.log_every == 0:
                progress.console.print(f"step {index + 1}: {line}", highlight=False)
            if (index + 1) % options.save_every == 0 or index + 1 == options.steps:
                _save(model, averaged, optimizer, index + 1, options.checkpoint)
    return averaged


def _optimizer(model: Any, options: LoopOptions) -> torch.optim.AdamW:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        slow = bool(options.slow_part) and name.startswith(options.slow_part)
        groups.setdefault((parameter.ndim > 1, slow), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": options.weight_decay if matrix else 0.0,
                "share": options.slow_rate if slow else 1.0,
            }
            for (matrix, slow), parameters in groups.items()
        ],
        lr=options.learning_rate,
        betas=(0.9, 0.98),
    )


def _rate(index: int, options: LoopOptions) -> float:
    warm_up = max(1, options.steps // 25)
    if index < warm_up:
        return options.learning_rate * (index + 1) / warm_up
    done = (index - warm_up) / max(1, options.steps - warm_up)
    return options.learning_rate * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * done)))


@torch.no_grad()
def _average(averaged: Any, model: Any, decay: float) -> None:
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)


def _save(
    model: Any, averaged: Any, optimizer: torch.optim.Optimizer, done: int, path: Path | None
) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "done": done,
    }
    partial = path.with_suffix(".tmp")
    torch.save(state, partial)
    partial.replace(path)


def _resume(model: Any, averaged: Any, optimizer: torch.optim.Optimizer, path: Path | None) -> int:
    if path is None or not path.exists():
        return 0
    # By way of the CPU: a checkpoint of one device can be gone on with on another.
    state = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["done"])
