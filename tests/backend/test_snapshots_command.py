"""`segzero snapshots`: what it lists of snapshots on disk, no Redis needed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from segzero_ml.corrections import Correction
from tests.backend.corrected import PROJECT, Run, runner
from tests.training_hooks.snapshot_world import Studio
from training_hooks.snapshot import Snapshot, SnapshotOptions, build_snapshot

NAME = PROJECT.label_studio


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGZERO_DATA_DIR", str(tmp_path))
    return tmp_path


def make(data: Path, project: int, count: int) -> Snapshot:
    studio = Studio()

    def ours(one: Correction) -> Correction:
        return replace(one, key=replace(one.key, label_studio=NAME, project=project))

    corrections = [ours(studio.corrected(n, second=n)) for n in range(1, count + 1)]
    folder = data / "snapshots" / f"{NAME}-{project}"
    return build_snapshot(corrections, studio.fetch, folder, SnapshotOptions(), None)


def test_without_any_it_says_where_they_come_from(data: Path, run: Run) -> None:
    result = run("snapshots")
    assert result.code == 0
    assert f"There are none in {data}: each round of training makes one" in result.err


def test_snapshots_are_listed_newest_first_with_their_counts(data: Path, run: Run) -> None:
    older, newer, other = make(data, 7, 20), make(data, 7, 24), make(data, 8, 12)
    lines = run("snapshots").out.splitlines()
    assert [line.split()[3] for line in lines[1:]] == [other.id, newer.id, older.id]
    assert lines[2].split()[2] == "7"
    counts = [len(newer.train), len(newer.held_out), len(newer.train), 0, 0, 0]
    assert [int(word) for word in lines[2].split()[4:10]] == counts
    assert len(run("snapshots", "--project", "8").out.splitlines()) == 2


def test_as_json_a_program_finds_every_count(data: Path, run: Run) -> None:
    made = make(data, 7, 20)
    (found,) = json.loads(run("snapshots", "--json").out)["snapshots"]
    assert found["id"] == made.id
    assert found["project"] == 7
    assert found["train"]["examples"] == len(made.train)
    assert found["held_out"]["verdicts"]["edited"] == len(made.held_out)
    assert found["watermark"] == "2026-03-01T08:00:20+00:00"
    assert Path(found["folder"]) == made.folder


def test_a_damaged_one_is_said_first_and_does_not_hide_the_others(data: Path, run: Run) -> None:
    damaged, whole = make(data, 7, 20), make(data, 7, 21)
    (damaged.folder / "manifest.json").write_text("{}")
    result = run("snapshots")
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[1].startswith("damaged: ")
    assert whole.id in lines[2]
    found = json.loads(run("snapshots", "--json").out)["snapshots"]
    assert found[0]["problem"]
    assert found[1]["problem"] is None


def test_damage_in_an_image_is_found_when_it_is_looked_for(data: Path, run: Run) -> None:
    made = make(data, 7, 20)
    image = made.folder / made.train[0].image_file
    image.unlink()
    image.write_bytes(b"damaged")
    assert run("snapshots").code == 0
    result = run("snapshots", "--verify")
    assert result.code == 1
    assert "image" in result.out
