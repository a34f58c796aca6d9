"""The settings that go to the process of a round: what differs from the preset's defaults."""

from __future__ import annotations

from typing import Any, Final

from backend.settings import Settings
from segzero_ml.errors import ConfigError
from segzero_ml.rewards import RewardWeights

_OPTIONS: Final = (
    "rollouts",
    "prompts_per_step",
    "epochs",
    "max_steps",
    "learning_rate",
    "rank",
    "temperature",
    "kl",
    "max_new_tokens",
    "mask_truncated",
    "max_grad_norm",
    "train_vision",
    "save_every",
    "seed",
    "rehearsal",
    "rehearsal_share",
    "rehearsal_held_out",
)
_WEIGHTS: Final = ("mask", "box", "point", "format", "no_repetition", "length")


def round_overrides(settings: Settings) -> dict[str, Any]:
    """Names of `RoundOptions` and the values that were set for them; the rest is the preset's.

    Raises:
        ConfigError: The weights of the reward make no sense together.
    """
    found = {name: getattr(settings, f"train_{name.removeprefix('train_')}") for name in _OPTIONS}
    weights = {name: getattr(settings, f"train_weight_{name}") for name in _WEIGHTS}
    given = {name: value for name, value in found.items() if value is not None}
    weights = {name: value for name, value in weights.items() if value is not None}
    if weights:
        try:
            RewardWeights(**weights)
        except ConfigError as error:
            raise ConfigError(error.message, "Correct SEGZERO_TRAIN_WEIGHT_*.") from error
        given["weights"] = weights
    return given
