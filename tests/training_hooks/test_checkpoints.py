"""Checkpoints on disk: what a kill left in pieces counts for nothing."""

from __future__ import annotations

from pathlib import Path

from training_hooks.checkpoints import checkpoints, discard_broken


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
