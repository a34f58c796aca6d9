"""How a round learns: presets' defaults, and what changes them."""

from __future__ import annotations

import pytest

from segzero_ml.errors import ConfigError
from training_hooks.round_options import RoundOptions, default_options, overridden


def test_changed_options_leave_the_others_as_the_preset_has_them() -> None:
    options = overridden(default_options("tiny"), {"max_steps": 4, "weights": {"box": 0.5}})
    assert options.max_steps == 4
    assert options.weights.box == 0.5
    assert options.weights.mask == default_options("tiny").weights.mask
    assert options.rank == default_options("tiny").rank


@pytest.mark.parametrize(
    "changes",
    [
        [],
        {"steps": 4},
        {"weights": {"beauty": 1.0}},
        {"weights": {"mask": 0.0}},
        {"weights": 3},
        {"rank": "many"},
        {"rollouts": 1},
    ],
)
def test_options_that_no_round_knows_are_refused(changes: object) -> None:
    with pytest.raises(ConfigError):
        overridden(RoundOptions(), changes)


def test_a_preset_without_defaults_of_its_own_gets_those_of_large_models() -> None:
    assert default_options("seg-zero-7b") == RoundOptions()
