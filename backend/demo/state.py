"""What the demo keeps between runs: its folder, its login, its ports."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from backend.demo.processes import LOOPBACK, ProcessError, free_port, is_free
from backend.demo.servers import BackendLogin, Login

LABEL_STUDIO_PORT: Final = 8080
BACKEND_PORT: Final = 9090
_OWNER_ONLY: Final = 0o600


@dataclass(frozen=True, slots=True)
class Folder:
    """The demo's folder.

    Args:
        root: Everything lies under it.
    """

    root: Path

    @property
    def label_studio(self) -> Path:
        """Label Studio's virtual environment."""
        return self.root / "label-studio"

    @property
    def data(self) -> Path:
        """Label Studio's database and uploads."""
        return self.root / "data"

    @property
    def segzero(self) -> Path:
        """SegZero's data: corrections, jobs, webhooks that wait."""
        return self.root / "segzero"

    @property
    def state(self) -> Path:
        """The login and the ports of the last run; readable by the owner only."""
        return self.root / "state.json"

    def log(self, name: str) -> Path:
        """The log of one of the programs."""
        return self.root / "logs" / f"{name}.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second demo out of the folder.

        Raises:
            ProcessError: One is running.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ProcessError(
                    f"A demo is already running in {self.root}.",
                    "Stop it with Ctrl-C where it runs, or give this one another --folder.",
                ) from None
            yield


@dataclass(frozen=True, slots=True)
class State:
    """One demo: kept, it can be gone on with.

    Args:
        user: Label Studio's user.
        backend: What Label Studio shows the backend.
        label_studio_port: Port of Label Studio.
        backend_port: Port of the backend; the project's webhook points to it.
        project_id: The project; None before it is made.
        evening_id: The project of scenes to be corrected; None before it is made.
    """

    user: Login
    backend: BackendLogin
    label_studio_port: int
    backend_port: int
    project_id: int | None = None
    evening_id: int | None = None

    @property
    def label_studio_url(self) -> str:
        """Address of Label Studio."""
        return f"http://{LOOPBACK}:{self.label_studio_port}"

    @property
    def backend_url(self) -> str:
        """Address of the backend."""
        return f"http://{LOOPBACK}:{self.backend_port}"

    def save(self, folder: Folder) -> None:
        """Write it where only the owner can read it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptor = os.open(folder.state, flags, _OWNER_ONLY)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2)


def evening_project(state: State) -> int:
    """The project of evening scenes.

    Raises:
        ProcessError: It is not made yet.
    """
    if state.evening_id is None:
        raise ProcessError(
            "The demo has no project of evening scenes yet.",
            "Wait until make demo says how to correct them.",
        )
    return state.evening_id


def has_data(folder: Folder) -> bool:
    """Whether an earlier run left anything that a fresh one drops."""
    return folder.data.exists() or folder.segzero.exists()


def fresh_state(folder: Folder, port: int | None) -> State:
    """Start anew: the last run's data are removed, of Label Studio and of SegZero.

    Args:
        folder: The demo's folder.
        port: Port for Label Studio; None for 8080 if it is free, else any.

    Raises:
        ProcessError: The port is taken.
    """
    if port is not None:
        _check_free(port, "Label Studio")
    folder.state.unlink(missing_ok=True)
    for data in (folder.data, folder.segzero):
        shutil.rmtree(data, ignore_errors=True)
    label_studio_port = port or free_port(LABEL_STUDIO_PORT)
    return State(
        Login.generate(), BackendLogin.generate(), label_studio_port, free_port(BACKEND_PORT)
    )


def kept_state(folder: Folder, port: int | None = None) -> State | None:
    """What there is to go on with; None if the last run made no project, or there was none.

    Args:
        folder: The demo's folder.
        port: Another port for Label Studio than that of the last run.

    Raises:
        ProcessError: One of its ports is taken.
    """
    state = saved_state(folder)
    if state is None or state.project_id is None or not folder.data.is_dir():
        return None
    if port is not None:
        state = replace(state, label_studio_port=port)
    _check_free(state.label_studio_port, "Label Studio")
    _check_free(state.backend_port, "the backend")
    return state


def saved_state(folder: Folder) -> State | None:
    """What a run has written, whether or not that one is still running; None for nothing."""
    try:
        saved: dict[str, Any] = json.loads(folder.state.read_text(encoding="utf-8"))
        return State(Login(**saved.pop("user")), BackendLogin(**saved.pop("backend")), **saved)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _check_free(port: int, whose: str) -> None:
    if not is_free(port):
        raise ProcessError(
            f"Port {port} (of {whose}) is taken by another program.",
            "Stop that program; or choose Label Studio's with --port; or drop the last run's "
            "data and ports with make demo FRESH=1.",
        )
