"""Trackers of curves that fail, as their servers do: no round ends because of them."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from training_hooks.trackers import Tolerant, trackers

EVENTS = ("on_train_begin", "on_log", "on_save", "on_train_end")


class Tracker(TrainerCallback):
    """Asks a server on this machine, which is there or not, when one of its events comes."""

    def __init__(self, event: str = "") -> None:
        self.heard: list[str] = []
        for name in EVENTS:
            setattr(self, name, lambda *_, name=name, **__: self._hear(name, name == event))

    def _hear(self, name: str, asks: bool) -> None:
        self.heard.append(name)
        if asks:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = free.getsockname()
            socket.create_connection(address, 1).close()  # nothing listens there any more


class Line(torch.nn.Module):
    """A model of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.weight * x - 1) ** 2).mean()}


def train(callback: TrainerCallback, folder: Path) -> int:
    """A training of two steps; how many it made."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=2,
        logging_steps=1,
        save_steps=1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    rows = [{"x": torch.ones(1)} for _ in range(16)]
    trainer = Trainer(model=Line(), args=arguments, train_dataset=rows, callbacks=[callback])
    trainer.train()
    return trainer.state.global_step


def test_a_tracker_that_works_hears_all_of_a_training(tmp_path: Path) -> None:
    tracker = Tracker()
    assert train(Tolerant("It", lambda: tracker), tmp_path) == 2
    assert set(tracker.heard) == set(EVENTS)
    assert tracker.heard.count("on_save") == 2


@pytest.mark.parametrize("event", EVENTS)
def test_a_tracker_that_fails_is_told_of_once_and_hears_nothing_more(
    event: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(event)
    with caplog.at_level(logging.WARNING, "training_hooks.trackers"):
        assert train(Tolerant("MLflow", lambda: tracker), tmp_path) == 2
    assert tracker.heard.count(event) == 1
    assert tracker.heard[-1] == event
    (said,) = [one.getMessage() for one in caplog.records if one.name.endswith("trackers")]
    assert said.startswith("MLflow gets nothing more of this round: ConnectionRefusedError")


def test_a_tracker_that_cannot_even_be_made_ends_no_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> TrainerCallback:
        raise ModuleNotFoundError("No module named 'psycopg2': postgresql://me:secret@db/curves")

    assert train(Tolerant("MLflow", make), tmp_path) == 2
    assert caplog.text.count("No module named 'psycopg2'") == 1
    assert "secret" not in caplog.text


def test_mlflow_is_there_unless_it_is_not_installed_or_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trackers() == []
    (tmp_path / "mlflow.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [type(one) for one in trackers()] == [Tolerant]
    monkeypatch.setenv("DISABLE_MLFLOW_INTEGRATION", "TRUE")
    assert trackers() == []
    assert "mlflow" not in sys.modules  # it is not imported before the training begins
