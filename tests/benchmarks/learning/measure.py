"""Models on scenes that no project had: the base, what was promoted, and every checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from segzero_ml.adapted_pipelines import AdaptedPipelines
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.evaluate import evaluate
from segzero_ml.pipeline import Pipeline
from segzero_ml.registry import Registry
from segzero_ml.tiny.scenes import Style
from tests.benchmarks.learning.plan import PLAIN_SEED, SHIFTED_SEED
from training_hooks.blending import blended
from training_hooks.checkpoints import COLD_START
from training_hooks.round_files import RESULT

PRESET: Final = "tiny"
_SEEDS: Final[dict[Style, int]] = {"shifted": SHIFTED_SEED, "plain": PLAIN_SEED}
_BATCH: Final = 16

Figures = dict[str, Any]


class Models:
    """The base, loaded once, and what is laid over it."""

    def __init__(self, held_out: int, say: Callable[[str], None]) -> None:
        self._held_out = held_out
        self._say = say
        self._base = Pipeline.load(PRESET)
        self._adapted = AdaptedPipelines(self._base)

    def base(self, style: Style) -> Figures:
        """The model without anything learnt."""
        return self._measured(self._base, style)

    def champion(self, registry: Path, style: Style) -> Figures:
        """What a project's registry says serves.

        Raises:
            WeightsError: It is damaged, or answers otherwise than when it was published.
        """
        version = Registry(registry).champion()
        if version is None:
            return self.base(style)
        pipeline = self._adapted.put_on(version)
        try:
            return self._measured(pipeline, style)
        finally:
            self._adapted.take_off(pipeline)

    def checkpoint(self, folder: Path, style: Style) -> Figures:
        """A checkpoint of a round, as it would serve."""
        share = json.loads((folder.parent / RESULT).read_bytes())["share"]
        with TemporaryDirectory() as into:
            shown = blended(folder, share, Path(into))
            pipeline = self._adapted.try_on(shown, folder.name)
        try:
            return self._measured(pipeline, style)
        finally:
            self._adapted.take_off(pipeline)

    def _measured(self, pipeline: Pipeline, style: Style) -> Figures:
        samples = scene_samples(self._held_out, _SEEDS[style], style)
        report = evaluate(pipeline, samples, batch_size=_BATCH)
        self._say(
            f"{pipeline.model_version} on {len(samples)} {style} scenes: gIoU "
            f"{report['gIoU']:.3f}, N-acc {report['n_acc']:.3f}, "
            f"unreadable {report['format_errors']:.3f}"
        )
        return report


def checkpoints_of(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a round with their steps, in order; step 0 is after the cold start."""
    named = [(int(path.name.rpartition("-")[2]), path) for path in folder.glob("checkpoint-*")]
    found = [(0, folder / COLD_START), *named]
    return sorted(one for one in found if (one[1] / "adapter_model.safetensors").is_file())
