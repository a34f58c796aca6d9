"""What older rounds of training leave on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.learning.tidy import tidy_rounds

STAYS = {"report.html", "outcome.json", "log.txt", "runs/curve"}
STATE = "checkpoint-4/optimizer.pt"
GOES = {
    "result.json",
    "golden.json",
    "checkpoint-4/trainer_state.json",
    "last/a",
    "cold-start/a",
    "blended/checkpoint-4/a",
}


def round_of(rounds: Path, name: str, ended_at_s: int, *, has_ended: bool = True) -> Path:
    folder = rounds / name
    for file in STAYS | GOES | {"rehearsal/1.png", STATE}:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")
    if not has_ended:
        (folder / "outcome.json").unlink()
    for path in (folder / "outcome.json", folder):
        if path.exists():
            os.utime(path, (ended_at_s, ended_at_s))
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_of_rounds_but_the_newest_only_what_people_read_stays(tmp_path: Path) -> None:
    # Their names tell nothing of their age.
    ages = {"c": 1, "a": 2, "d": 3, "b": 4}
    rounds = {age: round_of(tmp_path, name, age) for name, age in ages.items()}
    tidy_rounds(tmp_path, 2)
    assert files(rounds[1]) == files(rounds[2]) == STAYS
    assert files(rounds[3]) == files(rounds[4]) == STAYS | GOES | {"rehearsal/1.png"}
    assert not (rounds[1] / "checkpoint-4").exists()


def test_a_round_that_was_given_up_is_tidied_by_when_it_began(tmp_path: Path) -> None:
    given_up = round_of(tmp_path, "a", 1, has_ended=False)
    newest = round_of(tmp_path, "b", 2)
    tidy_rounds(tmp_path, 1)
    assert files(given_up) == STAYS - {"outcome.json"}
    assert files(newest) >= GOES


def test_a_round_that_is_not_whole_keeps_the_state_to_go_on_from(tmp_path: Path) -> None:
    cancelled = round_of(tmp_path, "a", 1)
    (cancelled / "result.json").unlink()
    tidy_rounds(tmp_path, 1)
    assert STATE in files(cancelled)


def test_what_cannot_be_removed_is_told_and_the_rest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = round_of(tmp_path, "a", 1)
    round_of(tmp_path, "b", 2)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", refuse)
    tidy_rounds(tmp_path, 1)
    assert "checkpoint-4" in caplog.text
    assert "Permission denied" in caplog.text
    assert not (old / "result.json").exists()


def test_without_rounds_there_is_nothing_to_tidy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tidy_rounds(tmp_path, 1)
    tidy_rounds(tmp_path / "missing", 1)
    assert "cannot be tidied" in caplog.text
