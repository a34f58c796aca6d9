"""Checkpoints on disk: what a kill left in pieces counts for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_hooks.checkpoints import checkpoints, discard_broken, drop_states

STATES = ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth", "global_step4/a")


def _checkpoint(folder: Path, step: int, state: str | None = "{}") -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return path


def test_only_those_that_are_whole_count_in_the_order_of_their_steps(tmp_path: Path) -> None:
    ten, two = _checkpoint(tmp_path, 10), _checkpoint(tmp_path, 2)
    cut = _checkpoint(tmp_path, 12, '{"global_st')
    without = _checkpoint(tmp_path, 14, None)
    (tmp_path / "checkpoint-old").mkdir()
    assert checkpoints(tmp_path) == (two, ten)
    discard_broken(tmp_path)
    assert not cut.exists()
    assert not without.exists()
    assert (tmp_path / "checkpoint-old").exists()
    assert checkpoints(tmp_path) == (two, ten)


def test_a_round_that_has_not_begun_has_none(tmp_path: Path) -> None:
    discard_broken(tmp_path / "none")
    assert checkpoints(tmp_path / "none") == ()


def _with_states(path: Path) -> Path:
    for name in STATES:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"state")
    return path


def _files(path: Path) -> set[str]:
    return {one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file()}


def test_of_checkpoints_only_the_newest_that_is_whole_keeps_what_it_takes_to_go_on(
    tmp_path: Path,
) -> None:
    older, newest = (_with_states(_checkpoint(tmp_path, step)) for step in (4, 12))
    in_pieces = _with_states(_checkpoint(tmp_path, 16, None))  # it is being written
    drop_states(tmp_path, but_newest=True)
    assert _files(older) == {"adapter_model.safetensors", "trainer_state.json"}
    assert _files(newest) == _files(older) | set(STATES)
    assert set(STATES) < _files(in_pieces)
    assert checkpoints(tmp_path) == (older, newest)
    drop_states(tmp_path, but_newest=False)
    assert _files(newest) == _files(older)
    drop_states(tmp_path / "none", but_newest=True)


def test_a_state_that_cannot_be_removed_is_told_of_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = _with_states(_checkpoint(tmp_path, 4))

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", refuse)
    drop_states(tmp_path, but_newest=False)
    assert "Permission denied" in caplog.text
    assert "optimizer.pt" not in _files(path)
