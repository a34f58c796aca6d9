"""The README says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from backend.settings import ENV_PREFIX, Settings
from segzero_ml.presets import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def _default(value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, SecretStr):
        raise AssertionError("A secret must not have a default.")
    if isinstance(value, tuple):
        return f"`{','.join(str(item) for item in value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _settings_table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(
            f"| `{ENV_PREFIX}{name.upper()}` | {_default(field.default)} | {field.description} |"
        )
    return "\n".join(rows)


def test_the_table_of_settings_is_the_settings_own() -> None:
    assert _settings_table() in README, f"put this into README.md:\n\n{_settings_table()}"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_described(name: str) -> None:
    assert f"| `{name}` |" in README


def test_every_file_the_readme_names_is_there() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", README)
    named = re.findall(r"`((?:docker|segzero_ml|tests|training_hooks)/[\w./-]+)`", README)
    assert links
    missing = [path for path in links + named if not (ROOT / path).exists()]
    assert missing == []


def test_every_segzero_command_in_the_readme_exists() -> None:
    from typer.main import get_command

    from backend.cli import app

    known = set(getattr(get_command(app), "commands", {}))
    named = set(re.findall(r"(?:^|`)segzero ([a-z]+)", README, re.MULTILINE))
    assert named
    assert named <= known
