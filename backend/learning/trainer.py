"""The process that a train job starts: the round itself.

The job's own process never loads torch. What it starts dies with it, holds the project's lock
as long as it lives, runs at a lower priority with few threads, and writes its log into the
round's folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backend.settings import Settings
from segzero_ml.errors import JobError, SegZeroError
from training_hooks import processes
from training_hooks.failures import reason_line
from training_hooks.round_files import ERROR, LOG

_log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.25

_MLFLOW: Final = "mlflow.db"
_TAIL_BYTES: Final = 64 * 1024
_STOP_S: Final = 10.0
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_NO_ROOM: Final = (
    "No space left on device",
    "File too large",
    "Disk quota exceeded",
    # What torch says of a file that is cut off while it is saved; it names no reason.
    "basic_ios::clear: iostream error",
    "PytorchStreamWriter failed",
    "unexpected pos",
)
_TOO_LITTLE: Final = 64 << 20
"""Bytes left on a disk with which no round gets far; the log itself may not fit on it any more."""


class RoundFailedError(JobError):
    """A process of the round said why it cannot be done; trying again would not help."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended.

    Args:
        status: Its exit status, negative for a signal.
        log: What it wrote last.
        refusal: Why the round cannot be done, where the process said so itself.
        folder: The round's.
        free_bytes: What was left on its disk then; None where nobody knows.
    """

    status: int
    log: str
    refusal: SegZeroError | None = None
    folder: Path = Path()
    free_bytes: int | None = None

    def check(self, what: str) -> None:
        """Pass where it ended well.

        Args:
            what: What the process did, as the subject of a sentence.

        Raises:
            RoundFailedError: It said itself why it failed.
            JobError: It was killed or broke off; the next try goes on from its checkpoint.
        """
        if self.status == 0:
            return
        # A launcher of several processes has a status of its own.
        if self.status > 0 and self.refusal is not None:
            raise RoundFailedError(reason_line(self.refusal.message), self.refusal.remedy)
        how = (
            f"was killed by signal {-self.status}"
            if self.status < 0
            else f"broke off: {self._last_line()}"
        )
        if self._has_no_room():
            free = "" if self.free_bytes is None else f" ({self.free_bytes / 1e9:.1f} GB free)"
            raise JobError(
                f"There is no room left on the disk of {self.folder}{free}; the version that "
                "serves is untouched.",
                "Make room there, or raise its quota: old folders under rounds and snapshots may "
                f"be deleted. {what} {how}.",
            )
        raise JobError(f"{what} {how}.", f"{LOG} in the round's folder has the details.")

    def _has_no_room(self) -> bool:
        if self.free_bytes is not None and self.free_bytes < _TOO_LITTLE:
            return True
        return any(words in self.log for words in _NO_ROOM)

    def _last_line(self) -> str:
        lines = [line for line in self.log.splitlines() if line.strip()]
        return reason_line(lines[-1]).rstrip(".") if lines else f"exit status {self.status}"


def round_arguments(
    snapshot: Path, out: Path, preset: str, champion: Path | None, options: Path, note: str = ""
) -> list[str]:
    """The arguments of a round, see `training_hooks.round`."""
    given: dict[str, object] = {
        "--snapshot": snapshot,
        "--out": out,
        "--preset": preset,
        "--options": options,
    }
    if champion is not None:
        given["--champion"] = champion
    if note:
        given["--note"] = note
    return [str(word) for pair in given.items() for word in pair]


def run_process(
    command: Sequence[str],
    folder: Path,
    settings: Settings,
    lock: int,
    look: Callable[[], None] = lambda: None,
) -> Ending:
    """Run a process of a round to its end. Call it in the main thread.

    Args:
        command: Its program and arguments.
        folder: The round's; the log lies there.
        settings: How many threads it may use, and how far it yields.
        lock: The project's lock: open in the process as long as that lives.
        look: Called a few times a second; what it raises ends the process.

    Raises:
        JobError: The process cannot be started.
    """
    log = folder / LOG
    try:
        (folder / ERROR).unlink(missing_ok=True)
        with log.open("ab") as output:
            begin = output.tell()
            process = processes.start(
                command,
                env=_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
            )
    except OSError as error:
        raise JobError(f"The training cannot be started: {error.strerror or error}.") from error
    with contextlib.suppress(OSError):  # it may have ended already
        os.setpriority(os.PRIO_PROCESS, process.pid, settings.train_nice)
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_EVERY_S)
                break
            look()
    finally:
        if process.poll() is None:
            processes.stop(process, _STOP_S)
    return Ending(
        process.returncode, _tail(log, begin), _refusal(folder / ERROR), folder, _free(folder)
    )


def threads(settings: Settings) -> int:
    """How many threads of the processor a round uses at most."""
    return settings.train_threads or max(1, (os.cpu_count() or 2) // 2)


def peak_memory_bytes() -> int:
    """Most memory that any process took which this one started and saw end."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


def read_json(path: Path) -> Mapping[str, Any] | None:
    """A file that a process replaces as a whole; None where there is none, or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _environment(settings: Settings) -> dict[str, str]:
    number = str(threads(settings))
    # Where MLflow is installed, rounds are logged in the data folder unless it is told otherwise.
    mlflow = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{settings.data_dir.absolute() / _MLFLOW}",
        "MLFLOW_EXPERIMENT_NAME": "segzero",
    }
    threading = dict.fromkeys(_THREADS, number)
    return {**mlflow, **os.environ, **threading, "PYTHONUNBUFFERED": "1"}


def _tail(log: Path, begin: int) -> str:
    """What was written since, or the last of it."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(begin, end - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _refusal(path: Path) -> SegZeroError | None:
    """The error that the process said it ended with."""
    found = read_json(path)
    if found is None or "message" not in found:
        return None
    return SegZeroError(str(found["message"]), str(found.get("remedy", "")))
