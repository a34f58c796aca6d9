"""Versions of the bundled model to be served: no fixtures, no tests."""

from __future__ import annotations

from pathlib import Path

from backend.model_folders import registry_of
from backend.settings import load_settings
from segzero_ml.adapter_files import TENSORS_FILE
from segzero_ml.pipeline import Pipeline
from segzero_ml.presets import get_preset
from segzero_ml.reasoner.adapters import Adapters
from segzero_ml.reasoner.golden import record_golden
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.registry import Registry
from segzero_ml.tiny.scenes import Scene
from segzero_ml.versions import Version, VersionInfo
from tests.loras import write_loras


class Trained:
    """What training leaves behind: adapters that hardly change the bundled reasoner.

    Args:
        folder: Where they are written.
        scenes: Their golden predictions are of these.
        seeds: One adapter for each.
    """

    def __init__(self, folder: Path, scenes: list[Scene], seeds: tuple[int, ...]) -> None:
        preset = get_preset("tiny")
        self._folders = write_loras(folder, seeds, preset, scale=1e-4)
        reasoner = LocalReasoner.load(preset)
        images, requests = [scene.image for scene in scenes[:2]], ["the red shape", "a circle"]
        self._infos = {}
        for seed, adapter in self._folders.items():
            adapters = Adapters(reasoner)
            adapted = adapters.put_on(adapter)
            golden = record_golden(adapted, images, requests)
            adapters.take_off(adapted)
            self._infos[seed] = VersionInfo(
                "tiny", reasoner.version, round=f"r{seed}", golden=golden
            )

    def publish(self, registry: Registry, seed: int) -> str:
        return registry.publish(self._folders[seed], self._infos[seed]).id


def registry_in(data_dir: Path, project: int = 1) -> Registry:
    return registry_of(load_settings(data_dir=data_dir), project)


def truncate(version: Version) -> None:
    path = version.folder / TENSORS_FILE
    path.write_bytes(path.read_bytes()[:-100])


def promote_damaged(registry: Registry, version_id: str) -> None:
    """Promote a version whose file breaks the moment after it was checked."""
    registry.promote(version_id, lambda: truncate(registry.version(version_id)))


def adapters_in_memory(pipeline: Pipeline) -> set[str]:
    reasoner = pipeline.reasoner
    assert isinstance(reasoner, LocalReasoner)
    return {key for module in reasoner.model.modules() for key in getattr(module, "lora_A", ())}
