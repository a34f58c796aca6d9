"""The settings that go to the process of a round: what differs from the preset's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final

from backend.settings import Settings
from segzero_ml.errors import ConfigError
from segzero_ml.rewards import RewardWeights
from training_hooks.round_options import RoundOptions, default_options, overridden

_WEIGHTS: Final = "weights"
_OTHERWISE: Final[Mapping[str, str]] = MappingProxyType(
    {"schedule": "train_rate_schedule", "train_vision": "train_vision"}
)
"""Options whose settings are not called like them."""


def setting_of(option: str) -> str:
    """The setting of a round's option, by the option's name."""
    return _OTHERWISE.get(option, f"train_{option}")


def round_overrides(settings: Settings) -> dict[str, Any]:
    """Names of `RoundOptions` and the values that were set for them; the rest is the preset's."""
    found = {
        one.name: getattr(settings, setting_of(one.name), None)
        for one in fields(RoundOptions)
        if one.name != _WEIGHTS
    }
    weights = {
        one.name: getattr(settings, f"train_weight_{one.name}", None)
        for one in fields(RewardWeights)
    }
    given = {name: value for name, value in found.items() if value is not None}
    weights = {name: value for name, value in weights.items() if value is not None}
    return {**given, _WEIGHTS: weights} if weights else given


def round_options(settings: Settings) -> RoundOptions:
    """How a round is run, with the preset's defaults.

    Raises:
        ConfigError: The values make no sense together.
    """
    try:
        return overridden(default_options(settings.preset), round_overrides(settings))
    except ConfigError as error:
        remedy = error.remedy or "Correct the SEGZERO_TRAIN_* variables."
        raise ConfigError(f"The settings of training are wrong: {error.message}", remedy) from error
