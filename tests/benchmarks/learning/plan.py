"""What a run of the benchmark is asked for, and which scenes it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# Seeds of `scene_samples`: each stands for a million scenes that no other one has. Nothing
# else in this repository draws from these: no setting was chosen by looking at them.
PROJECT_SEED: Final = 11_000
SHIFTED_SEED: Final = 12_000
PLAIN_SEED: Final = 13_000
PROJECT_PLAIN_SEED: Final = 14_000

MOST_CORRECTIONS: Final = 150
"""What the project promises to learn from."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the benchmark.

    Args:
        out: Where everything is kept; what is there already is not done again.
        seeds: Each has scenes, and a round of training, of its own.
        shuffled_seeds: Seeds of the counter-proof: the corrections of their projects have the
            masks of other pictures.
        corrections: After so many the round starts by itself.
        held_out: Scenes of each style that are measured on; never part of a project.
        plain_tasks: Plain scenes that are among the project's tasks besides, for every hundred
            shifted ones.
        curve: Whether all checkpoints are measured, too.
        settings: Further `SEGZERO_*` settings of `segzero up`.
    """

    out: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    shuffled_seeds: tuple[int, ...] = (0,)
    corrections: int = MOST_CORRECTIONS
    held_out: int = 300
    plain_tasks: int = 0
    curve: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All projects that are gone through, in their order."""
        return (
            *(Arm(seed, is_shuffled=False) for seed in self.seeds),
            *(Arm(seed, is_shuffled=True) for seed in self.shuffled_seeds),
        )

    def folder(self, arm: Arm) -> Path:
        """Where everything of one project lies."""
        return self.out / arm.name


@dataclass(frozen=True, slots=True)
class Arm:
    """One project with its annotator.

    Args:
        seed: Of its scenes and of its round.
        is_shuffled: Whether the annotator submits the masks of other pictures.
    """

    seed: int
    is_shuffled: bool

    @property
    def name(self) -> str:
        """Names its folder."""
        return f"seed-{self.seed}" + ("-shuffled" if self.is_shuffled else "")
