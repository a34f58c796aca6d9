"""Installing Label Studio: what counts as done, and what failure says."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.demo.install import VERSION, install, installed
from backend.demo.processes import ProcessError


def finished(folder: Path, version: str = VERSION) -> Path:
    program = folder / "bin" / "label-studio"
    program.parent.mkdir(parents=True)
    program.touch()
    (folder / "installed.txt").write_text(f"{version}\n")
    return program


def test_a_finished_installation_is_used_as_it_is(tmp_path: Path) -> None:
    program = finished(tmp_path / "studio")
    assert install(tmp_path / "studio", tmp_path / "log") == program
    assert not (tmp_path / "log").exists()


def test_a_half_finished_or_older_installation_does_not_count(tmp_path: Path) -> None:
    assert installed(tmp_path / "none") is None
    finished(tmp_path / "old", "1.0.0")
    assert installed(tmp_path / "old") is None
    finished(tmp_path / "half")
    (tmp_path / "half" / "installed.txt").unlink()
    assert installed(tmp_path / "half") is None


@pytest.mark.slow
def test_an_installation_that_fails_shows_the_installers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ProcessError, match="could not be installed") as caught:
        install(tmp_path / "studio", tmp_path / "log")
    assert "label-studio" in caught.value.remedy
    assert installed(tmp_path / "studio") is None
