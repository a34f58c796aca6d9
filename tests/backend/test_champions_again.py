"""Versions that failed in a way that may pass are tried again, and damaged ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from backend.champions import Champions
from backend.model_folders import registries
from backend.settings import load_settings
from segzero_ml.pipeline import Pipeline
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.tiny.scenes import Scene
from tests.backend.versions import Trained, adapters_in_memory, promote_damaged, registry_in


@pytest.fixture(scope="module")
def trained(scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("loras"), scenes, (1, 2))


@pytest.fixture
def own_pipeline() -> Pipeline:
    """The bundled pair for one test alone, since adapters are laid over it."""
    return Pipeline.load("tiny")


class Memory:
    """How much of the memory others leave to the model: enough, or too little.

    Args:
        pipeline: The real one.
        monkeypatch: Makes its reasoner fail while there is too little.
    """

    def __init__(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        reasoner = pipeline.reasoner
        assert isinstance(reasoner, LocalReasoner)
        generate = reasoner.model.generate

        def generating(**inputs: Any) -> Any:
            if self.error is not None:
                raise self.error
            return generate(**inputs)

        monkeypatch.setattr(reasoner.model, "generate", generating)


class Looking:
    """The champions of a data folder, whose clock is set by hand."""

    def __init__(self, data_dir: Path, base: Pipeline) -> None:
        self.now = 0.0
        self.outcomes: list[str] = []
        settings = load_settings(data_dir=data_dir)
        self.champions = Champions(
            lambda: registries(settings), self.outcomes.append, clock=lambda: self.now
        )
        self.champions.begin(base)

    def look(self, after_s: float) -> str:
        """The version of project 1 when so many seconds have passed."""
        self.now += after_s
        self.champions.refresh()
        return str(self.champions.version(1, None))


def test_a_champion_that_found_too_little_memory_is_tried_again_ever_more_rarely(
    trained: Trained,
    own_pipeline: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = registry_in(tmp_path)
    champion = registry.promote(trained.publish(registry, 1)).id
    memory = Memory(own_pipeline, monkeypatch)
    here = Looking(tmp_path, own_pipeline)
    memory.error = torch.OutOfMemoryError()
    for pause_s in (0, 31, 61, 121):  # each of them a try
        assert here.look(pause_s) == own_pipeline.model_version
    memory.error = None
    for pause_s in (30, 60, 120):
        assert here.look(pause_s) == own_pipeline.model_version
    assert here.look(31) == f"{own_pipeline.model_version}+{champion}"
    assert here.outcomes == ["refused", "served"]
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == [
        "version.refused"
    ]


def test_the_longest_pause_before_another_try_is_ten_minutes(
    trained: Trained, own_pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = registry_in(tmp_path)
    champion = registry.promote(trained.publish(registry, 1)).id
    memory = Memory(own_pipeline, monkeypatch)
    here = Looking(tmp_path, own_pipeline)
    memory.error = torch.OutOfMemoryError()
    for _ in range(8):
        here.look(601)
    memory.error = None
    assert here.look(601).endswith(champion)


def test_a_version_promoted_meanwhile_is_tried_at_once(
    trained: Trained, own_pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = registry_in(tmp_path)
    first, second = (trained.publish(registry, seed) for seed in (1, 2))
    registry.promote(first)
    memory = Memory(own_pipeline, monkeypatch)
    here = Looking(tmp_path, own_pipeline)
    memory.error = torch.OutOfMemoryError()
    here.look(0)
    memory.error = None
    registry.promote(second)
    assert here.look(3).endswith(second)
    assert here.look(60).endswith(second)


def test_an_error_nobody_thought_of_leaves_nothing_behind_and_is_followed_by_another_try(
    trained: Trained, own_pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = registry_in(tmp_path)
    champion = registry.promote(trained.publish(registry, 1)).id
    memory = Memory(own_pipeline, monkeypatch)
    here = Looking(tmp_path, own_pipeline)
    memory.error = RuntimeError("The driver went away.")
    with pytest.raises(RuntimeError, match="driver"):
        here.look(0)
    assert not adapters_in_memory(own_pipeline)
    memory.error = None
    assert here.look(3) == own_pipeline.model_version
    assert here.look(30).endswith(champion)


def test_a_damaged_version_is_not_tried_again(
    trained: Trained, own_pipeline: Pipeline, tmp_path: Path
) -> None:
    registry = registry_in(tmp_path)
    version = registry.version(trained.publish(registry, 1))
    whole = {path.name: path.read_bytes() for path in version.folder.iterdir()}
    promote_damaged(registry, version.id)
    here = Looking(tmp_path, own_pipeline)
    here.look(0)
    for name, data in whole.items():
        (version.folder / name).write_bytes(data)
    assert here.look(601) == own_pipeline.model_version
    assert here.outcomes == ["refused"]
