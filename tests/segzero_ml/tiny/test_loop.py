"""The training loop: it learns, and an interruption changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segzero_ml.tiny.loop import LoopOptions, Step, run_loop


def _problem() -> tuple[nn.Module, Step]:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)

    def step(index: int) -> tuple[Tensor, dict[str, float]]:
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(index))
        loss = (model(x) - x.sum(dim=1, keepdim=True)).square().mean()
        return loss, {"error": float(loss.detach())}

    return model, step


def test_it_learns_and_the_average_follows() -> None:
    model, step = _problem()
    averaged = run_loop(model, step, LoopOptions(300, 0.05, average=0.9))
    assert averaged.weight.detach() == pytest.approx(torch.ones(1, 4), abs=0.05)
    assert not averaged.training


def test_going_on_after_an_interruption_ends_where_no_interruption_would(tmp_path: Path) -> None:
    model, step = _problem()
    straight = run_loop(model, step, LoopOptions(40, 0.05))
    model, step = _problem()
    checkpoint = tmp_path / "loop.pt"

    def broken(index: int) -> tuple[Tensor, dict[str, float]]:
        if index == 25:
            raise KeyboardInterrupt
        return step(index)

    options = LoopOptions(40, 0.05, checkpoint=checkpoint, save_every=10)
    with pytest.raises(KeyboardInterrupt):
        run_loop(model, broken, options)
    model, step = _problem()
    resumed = run_loop(model, step, options)
    assert torch.equal(straight.weight, resumed.weight)
