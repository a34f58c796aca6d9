"""Installs Label Studio into a virtual environment of its own.

It pins versions (redis, rq, numpy, Django) that this project cannot share.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from backend.demo.processes import Child, ProcessError

VERSION: Final = "1.23.2"
_STAMP: Final = "installed.txt"
_POLL_S: Final = 0.5
_INDEX_NAMES: Final = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")


def installed(folder: Path) -> Path | None:
    """The `label-studio` program of a finished installation, or None."""
    program = folder / "bin" / "label-studio"
    stamp = folder / _STAMP
    if program.is_file() and stamp.is_file() and stamp.read_text().strip() == VERSION:
        return program
    return None


def install(folder: Path, log: Path, tick: Callable[[float, str], None] | None = None) -> Path:
    """Have Label Studio in `folder`; does nothing if it is there.

    Args:
        folder: The virtual environment; a half-finished one is made anew.
        log: Where the installer's output goes.
        tick: Called now and then with the seconds spent and the installer's last line.

    Returns:
        The `label-studio` program.

    Raises:
        ProcessError: It cannot be installed; the remedy shows the installer's output.
    """
    program = installed(folder)
    if program is not None:
        return program
    shutil.rmtree(folder, ignore_errors=True)
    env = dict(os.environ)
    uv = _find_uv()
    python = str(folder / "bin" / "python")
    if uv is None:
        make = [sys.executable, "-m", "venv", str(folder)]
        fill = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    else:
        make = [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
        fill = [uv, "pip", "install", "--python", python]
        env |= _index(env)
    started = time.monotonic()
    for command in (make, [*fill, f"label-studio=={VERSION}"]):
        with Child("The installation of Label Studio", command, env, log) as child:
            while child.wait(_POLL_S) is None:
                if tick is not None:
                    tick(time.monotonic() - started, child.tail(1))
            if child.exit_code != 0:
                raise child.failed(
                    f"Label Studio {VERSION} could not be installed (exit code "
                    f"{child.exit_code}): is there a network, and room on the disk?"
                )
    (folder / _STAMP).write_text(f"{VERSION}\n")
    program = installed(folder)
    if program is None:
        raise ProcessError(f"The installation left no label-studio program in {folder}.")
    return program


def _find_uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def _index(env: Mapping[str, str]) -> dict[str, str]:
    """The package index that pip is told to use, for uv, which does not read pip's settings."""
    if any(env.get(name) for name in _INDEX_NAMES):
        return {}
    index = env.get("PIP_INDEX_URL", "")
    if not index:
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
            capture_output=True,
            text=True,
            check=False,
        )
        index = asked.stdout.strip() if asked.returncode == 0 else ""
    return {"UV_DEFAULT_INDEX": index} if index else {}
