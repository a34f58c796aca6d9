"""Child processes that never outlive their parent.

A parent ended by SIGKILL cannot clean up after itself, so the child has to arrange for its own
end. Linux does it with a signal that the kernel sends when the parent dies
(`PR_SET_PDEATHSIG`); elsewhere the child looks every half second whether its parent is still
there.

- A process that forks calls `die_with_parent` first thing in the child.
- A process that starts another program uses `start`, which puts a launcher in between: this
  very file, run without site packages, which arranges the same and then becomes the program.
- Grandchildren are not covered: a program that forks workers of its own calls
  `die_with_parent` in them, or is ended with `stop`, which ends the whole group.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_LOOK_EVERY_S: Final = 0.5


def die_with_parent(parent_pid: int | None = None) -> None:
    """Arrange that this process is killed when its parent ends, however that ends.

    On Linux the thread that forked counts as the parent: fork from a thread that lives as long
    as the process. The arrangement survives `exec` but not `fork`.

    Args:
        parent_pid: The parent, taken before the fork. With it, a parent that died in between
            is noticed; without it, the present parent is taken.

    Raises:
        OSError: The kernel refused.
    """
    parent = os.getppid() if parent_pid is None else parent_pid
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    else:
        watch_parent(parent)
    # The parent may have died before the kernel knew that we care.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def watch_parent(parent_pid: int) -> None:
    """Kill this process from a thread of its own as soon as the parent is another one.

    Args:
        parent_pid: The process that must stay the parent.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_LOOK_EVERY_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that dies when this process dies.

    Call it from the main thread: on Linux the child ends with the thread that started it.

    Args:
        argv: The program and its arguments; no shell is involved.
        options: Further arguments of `subprocess.Popen`: `env`, `cwd`, `stdout`, `pass_fds`...

    Returns:
        The process; its pid is that of the program itself on Linux.

    Raises:
        ValueError: `argv` is empty, or this is not the main thread.
        OSError: The interpreter cannot be started. A program that cannot be started ends the
            child with status 127 instead.
    """
    if not argv:
        raise ValueError("Nothing to start: the command is empty.")
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("Start child processes from the main thread: they end with the thread.")
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid())]
    # No shell, and the caller decides what runs.
    return subprocess.Popen([*launcher, *argv], start_new_session=True, **options)  # noqa: S603


def stop(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> int:
    """End a process started by `start`, and everything in its session's group.

    Args:
        process: What `start` returned.
        grace_s: Seconds between SIGTERM and SIGKILL.

    Returns:
        The exit status as `Popen.returncode` has it: negative for a signal.
    """
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    # Also what the program left behind in its group.
    _signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def ending(status: int | None) -> str:
    """How a process ended, in words, from what `os.wait4` says; None if nobody knows."""
    if status is None:
        return "ended, nobody knows how"
    if os.WIFSIGNALED(status):
        return f"was killed by signal {os.WTERMSIG(status)}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"


def launch(parent_pid: int, argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Become the program `argv`, tied to the life of the parent. Runs in the child.

    Args:
        parent_pid: The process that called `start`.
        argv: The program and its arguments.
        environment: What the program gets as its environment.

    Returns:
        An exit status, where the process cannot become the program: 127 if it cannot be
        started, and on systems without `PR_SET_PDEATHSIG` the status of the program.
    """
    try:
        if sys.platform != "linux":
            return _run_watched(parent_pid, argv)
        die_with_parent(parent_pid)
        os.execvpe(argv[0], list(argv), dict(environment))  # noqa: S606 - the caller's choice
    except OSError as error:
        sys.stderr.write(f"Cannot start {argv[0]}: {error.strerror}\n")
        return 127


def _run_watched(parent_pid: int, argv: Sequence[str]) -> int:
    """Run the program as a child, and kill it once the parent is gone."""
    child = subprocess.Popen(list(argv))  # noqa: S603 - the caller decides what runs
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_LOOK_EVERY_S)
        if os.getppid() != parent_pid:
            child.kill()


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), sys.argv[2:], os.environ))
