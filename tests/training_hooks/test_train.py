"""A short round of learning with the bundled pair: real sampling, real masks, a real adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segzero_ml import masks
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.errors import ConfigError, DatasetError
from segzero_ml.presets import get_preset
from segzero_ml.types import ImageSize
from training_hooks.round_options import RoundOptions, default_options
from training_hooks.steps import Step
from training_hooks.train import Lesson, prompts_per_step, train

# The trainer asks the model under its old name.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

SHORT = replace(
    default_options("tiny"),
    rollouts=4,
    prompts_per_step=3,
    max_steps=2,
    save_every=1,
    rank=4,
    cold_start=0,
)


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> list[Lesson]:
    folder = tmp_path_factory.mktemp("lessons")
    made = []
    for number, sample in enumerate(scene_samples(7, 77, "shifted")):
        image = sample.image()
        path = folder / f"{number}.png"
        image.save(path)
        true = tuple(masks.encode(mask) for mask in sample.masks)
        made.append(Lesson(path, ImageSize(image.width, image.height), sample.request, true))
    return made


@pytest.mark.slow
def test_a_round_leaves_an_adapter_that_has_learned_and_says_what_each_step_brought(
    lessons: list[Lesson], tmp_path: Path
) -> None:
    done = train(lessons, get_preset("tiny"), SHORT, tmp_path)
    assert [step.number for step in done.steps] == [1, 2]
    assert not done.was_stopped
    for step in done.steps:
        assert 0 <= step.figures["reward/mask"] <= step.figures["reward/format"] <= 1
        assert step.figures["reward"] > 0
    assert [path.name for path in done.checkpoints] == ["checkpoint-1", "checkpoint-2", "last"]
    adapter = load_file(done.checkpoints[-1] / "adapter_model.safetensors")
    assert any(name.endswith("lora_B.weight") and value.any() for name, value in adapter.items())


@pytest.mark.slow
def test_a_round_that_was_cut_short_goes_on_from_its_last_whole_checkpoint(
    lessons: list[Lesson], tmp_path: Path
) -> None:
    train(lessons, get_preset("tiny"), SHORT, tmp_path, lambda step: step.number < 1)
    (tmp_path / "checkpoint-2").mkdir()  # as a kill leaves one
    assert steps_in_the_optimiser_of(tmp_path / "checkpoint-1") == 1
    heard: list[int] = []

    def hear(step: Step) -> bool:
        heard.append(step.number)
        return True

    done = train(lessons, get_preset("tiny"), SHORT, tmp_path, hear)
    assert heard == [2]
    assert [step.number for step in done.steps] == [1, 2]
    assert [path.name for path in done.checkpoints] == ["checkpoint-1", "checkpoint-2", "last"]
    # It went on with the optimiser as it was; and the older checkpoint needs none any more.
    assert steps_in_the_optimiser_of(tmp_path / "checkpoint-2") == 2
    states = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} < states
    left = {path.name for path in (tmp_path / "checkpoint-1").iterdir()}
    assert not {"optimizer.pt", "scheduler.pt", "rng_state.pth"} & left


def steps_in_the_optimiser_of(checkpoint: Path) -> int:
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    return int(state[0]["step"])


@pytest.mark.slow
def test_a_round_ends_at_the_next_step_when_asked(lessons: list[Lesson], tmp_path: Path) -> None:
    heard: list[Step] = []

    def stop(step: Step) -> bool:
        heard.append(step)
        return False

    done = train(lessons, get_preset("tiny"), SHORT, tmp_path, stop)
    assert done.was_stopped
    assert [step.number for step in heard] == [1]
    assert done.checkpoints


def test_a_step_never_waits_for_more_prompts_than_there_are() -> None:
    assert prompts_per_step(3, RoundOptions(prompts_per_step=8)) == 3
    assert prompts_per_step(30, RoundOptions(prompts_per_step=8)) == 8
    with pytest.raises(DatasetError, match="nothing to learn from"):
        prompts_per_step(0, RoundOptions())


@pytest.mark.parametrize(
    ("lessons", "processes", "prompts"),
    [(30, 2, 8), (30, 3, 6), (30, 16, 8), (30, 24, 6), (30, 72, 9), (4, 3, 3)],
)
def test_a_step_is_shared_evenly_by_all_processes(
    lessons: int, processes: int, prompts: int
) -> None:
    options = RoundOptions(prompts_per_step=8, rollouts=8)
    assert prompts_per_step(lessons, options, processes) == prompts
    assert prompts * options.rollouts % processes == 0


def test_too_few_prompts_for_all_processes_are_refused() -> None:
    with pytest.raises(DatasetError, match="2 requests are too few for 3 processes"):
        prompts_per_step(2, RoundOptions(rollouts=8), 3)


def test_the_vision_tower_gets_an_adapter_only_where_that_is_wanted() -> None:
    assert "visual" not in RoundOptions().target_modules
    assert "visual" in RoundOptions(train_vision=True).target_modules


def test_options_that_cannot_work_are_refused() -> None:
    for name, value in {"rollouts": 1, "rank": 0, "learning_rate": 0.0, "kl": -1.0}.items():
        with pytest.raises(ConfigError):
            replace(RoundOptions(), **{name: value})  # type: ignore[arg-type]
