"""What commands beside the backend know of its data folder, and say of a wrong one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.data_folder import note_preset, noted_preset
from backend.settings import load_settings
from tests.backend.corrected import PROJECT, Run, World, runner, world
from tests.training_hooks.store_samples import correction
from training_hooks.round_options import default_options


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def here(_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Enough corrections for a round; no backend has noted its preset."""
    found = _world.use(monkeypatch)
    (found.folder / "preset").unlink(missing_ok=True)
    for number in range(1, 26):
        found.store.upsert(correction(number, number, task=number, project=PROJECT))
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.mark.parametrize(
    "command",
    [
        ("models",),
        ("snapshots",),
        ("rollback", "--project", "7"),
        ("rollback", "--project", "7", "--to", "v1-00000000"),
        ("train", "--project", "7"),
        ("corrections", "list"),
        ("worker", "train"),
    ],
)
def test_in_the_wrong_folder_a_command_names_the_one_it_looked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, command: tuple[str, ...]
) -> None:
    monkeypatch.delenv("SEGZERO_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    said = run(*command).err
    assert str(tmp_path / "segzero-data") in said
    assert "SEGZERO_DATA_DIR" in said


def test_status_names_the_folder_of_an_empty_spool(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert f"empty  {here.folder}/spool" in run("status").out
    assert json.loads(run("status", "--json").out)["spool"]["folder"] == f"{here.folder}/spool"


def test_a_dry_run_shows_the_options_of_the_preset_that_is_served(here: World, run: Run) -> None:
    served = "qwen3-vl-4b"
    note_preset(load_settings(preset=served))
    ran = run("train", "--project", 7, "--dry-run", "--json")
    found = json.loads(ran.out)
    assert found["preset"] == served
    assert found["options"]["rank"] == default_options(served).rank
    assert found["options"]["rollouts"] == default_options(served).rollouts
    assert served not in ran.err  # that too little is held out is told, no more
    assert f"Preset {served}" in run("train", "--project", 7, "--dry-run").out


def test_a_preset_that_was_set_stays_and_is_warned_of_where_another_is_served(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_preset(load_settings(preset="qwen3-vl-4b"))
    monkeypatch.setenv("SEGZERO_PRESET", "tiny")
    ran = run("train", "--project", 7, "--dry-run", "--json")
    assert json.loads(ran.out)["preset"] == "tiny"
    assert "serves qwen3-vl-4b" in " ".join(ran.err.split())


@pytest.mark.parametrize("content", [b"", b"huge\n", b"\xff\xfe", b"x" * 10_000])
def test_a_note_that_makes_no_sense_is_none(here: World, content: bytes) -> None:
    (here.folder / "preset").write_bytes(content)
    assert noted_preset(load_settings()) is None


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    note_preset(load_settings(data_dir=tmp_path / "nowhere"))
    assert noted_preset(load_settings(data_dir=tmp_path / "nowhere")) is None
