"""README and pages say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.settings import ENV_PREFIX, Settings
from segzero_ml.presets import PRESETS
from tests.settings_page import PAGE, page

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TEXTS = {
    path: path.read_text("utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
}


def test_the_page_of_settings_is_the_settings_own() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make docs`"


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"SEGZERO_[A-Z_]+[A-Z]", "".join(TEXTS.values())))
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert named
    assert named <= known


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_described(name: str) -> None:
    assert f"| `{name}` |" in README


def test_every_file_that_is_named_is_there() -> None:
    missing = []
    for path, text in TEXTS.items():
        links = re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", text)
        named = re.findall(r"`((?:docker|segzero_ml|tests|training_hooks)/[\w./-]+)`", text)
        missing += [one for one in links if not (path.parent / one).exists()]
        missing += [one for one in named if not (ROOT / one).exists()]
    assert missing == []


def test_every_segzero_command_that_is_named_exists() -> None:
    from typer.main import get_command

    from backend.cli import app

    known = set(getattr(get_command(app), "commands", {}))
    named = set(re.findall(r"(?:^|`)segzero ([a-z]+)", "\n".join(TEXTS.values()), re.MULTILINE))
    assert named
    assert named <= known
