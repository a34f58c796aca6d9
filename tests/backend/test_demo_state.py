"""What the demo keeps between two runs, and what it drops."""

from __future__ import annotations

import json
import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from backend.demo.processes import ProcessError, free_port
from backend.demo.show import status_command
from backend.demo.state import Folder, State, fresh_state, has_data, kept_state


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "demo")


def finished(folder: Folder) -> State:
    """A run that got as far as a project."""
    state = replace(fresh_state(folder, free_port()), project_id=3)
    folder.data.mkdir(parents=True)
    (folder.data / "label_studio.sqlite3").touch()
    folder.segzero.mkdir()
    state.save(folder)
    return state


def test_a_finished_run_is_gone_on_with(folder: Folder) -> None:
    state = finished(folder)
    assert kept_state(folder) == state
    assert (folder.data / "label_studio.sqlite3").exists()


def test_label_studio_may_get_another_port(folder: Folder) -> None:
    state, port = finished(folder), free_port()
    assert kept_state(folder, port) == replace(state, label_studio_port=port)


def test_a_run_without_a_project_is_nothing_to_go_on_with(folder: Folder) -> None:
    assert kept_state(folder) is None
    replace(finished(folder), project_id=None).save(folder)
    assert kept_state(folder) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"user": 1, "backend": {}}'])
def test_a_damaged_note_of_the_last_run_is_nothing_to_go_on_with(folder: Folder, text: str) -> None:
    finished(folder)
    folder.state.write_text(text)
    assert kept_state(folder) is None


def test_a_project_without_its_database_is_nothing_to_go_on_with(folder: Folder) -> None:
    finished(folder)
    (folder.data / "label_studio.sqlite3").unlink()
    folder.data.rmdir()
    assert kept_state(folder) is None


@pytest.mark.parametrize("which", ["label_studio_port", "backend_port"])
def test_a_port_that_is_taken_is_an_error_and_no_reason_to_drop_data(
    folder: Folder, which: str
) -> None:
    state = finished(folder)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        replace(state, **{which: other.getsockname()[1]}).save(folder)
        with pytest.raises(ProcessError, match="is taken by another program"):
            kept_state(folder)
    assert has_data(folder)


def test_a_fresh_start_drops_the_data_of_both(folder: Folder) -> None:
    assert not has_data(folder)
    before = finished(folder)
    assert has_data(folder)
    after = fresh_state(folder, before.label_studio_port)
    assert not has_data(folder)
    assert not folder.state.exists()
    assert after.user.password != before.user.password
    assert after.project_id is None


def test_a_fresh_start_with_a_taken_port_drops_nothing(folder: Folder) -> None:
    finished(folder)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ProcessError, match="is taken by another program"):
            fresh_state(folder, other.getsockname()[1])
    assert has_data(folder)


def test_the_note_holds_passwords_and_is_the_owners_alone(folder: Folder) -> None:
    state = finished(folder)
    assert stat.S_IMODE(folder.state.stat().st_mode) == 0o600
    assert json.loads(folder.state.read_text())["user"]["password"] == state.user.password


def test_the_command_for_the_state_works_where_the_demo_was_started(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = replace(finished(folder), backend_port=9090)
    monkeypatch.chdir(folder.root.parent)
    setting, program, status = status_command(state, folder).split()
    assert (setting, status) == ("SEGZERO_DATA_DIR=demo/segzero", "status")
    assert os.access(program, os.X_OK)
    assert "SEGZERO_PORT=1234" in status_command(replace(state, backend_port=1234), folder)
    monkeypatch.chdir("/")
    assert f"{folder.segzero}".removeprefix("/") in status_command(state, folder)
