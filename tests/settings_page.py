"""The page of all settings, written from the settings themselves: `make docs`.

`tests/test_readme.py` fails while the page is not what this makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from backend.learning.round_settings import setting_of
from backend.settings import ENV_PREFIX, Settings
from segzero_ml.rewards import RewardWeights
from training_hooks.round_options import RoundOptions, default_options

PAGE: Final = Path(__file__).parents[1] / "docs" / "settings.md"

_HEAD: Final = """\
# Settings

All settings are environment variables, read once at the start; `segzero up --help` has the usual
ones as options. This page is made by `make docs` from the settings themselves.

"""
_LARGE: Final = "visionreasoner-7b"


def page() -> str:
    """The whole page, in Markdown."""
    by_preset = _of_rounds()
    plain = {name: one for name, one in Settings.model_fields.items() if name not in by_preset}
    serving = {name: one for name, one in plain.items() if not name.startswith("train_")}
    learning = {name: one for name, one in plain.items() if name.startswith("train_")}
    return "\n".join(
        [
            f"{_HEAD}## Serving and corrections\n",
            *_table(serving),
            "\n## When a round of training starts, and what it learns from\n",
            *_table(learning),
            "\n## How a round trains\n",
            "Without a value the preset's own holds; all large presets have the same.\n",
            *_preset_table(by_preset),
            "",
        ]
    )


def _of_rounds() -> dict[str, tuple[object, object]]:
    """The settings whose default is the preset's, with that of `tiny` and of a large one."""
    tiny, large = default_options("tiny"), default_options(_LARGE)
    found = {
        setting_of(one.name): (getattr(tiny, one.name), getattr(large, one.name))
        for one in fields(RoundOptions)
        if one.name != "weights"
    }
    for one in fields(RewardWeights):
        values = (getattr(tiny.weights, one.name), getattr(large.weights, one.name))
        found[f"train_weight_{one.name}"] = values
    return {name: values for name, values in found.items() if name in Settings.model_fields}


def _table(settings: dict[str, FieldInfo]) -> Iterator[str]:
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for name, field in settings.items():
        yield f"| {_variable(name)} | {_shown(field.default)} | {field.description} |"


def _preset_table(settings: dict[str, tuple[object, object]]) -> Iterator[str]:
    yield "| variable | `tiny` | large presets | meaning |"
    yield "|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        if name in settings:
            tiny, large = map(_shown, settings[name])
            yield f"| {_variable(name)} | {tiny} | {large} | {field.description} |"


def _variable(name: str) -> str:
    return f"`{ENV_PREFIX}{name.upper()}`"


def _shown(value: object) -> str:
    if value is None or value in ((), ""):
        return ""
    if isinstance(value, SecretStr):
        raise AssertionError("A secret must not have a default.")
    if isinstance(value, tuple):
        return f"`{','.join(str(item) for item in value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
