"""Child processes that never outlive their parent.

A parent ended by SIGKILL cannot clean up after itself, so the child has to arrange for its own
end. Linux does it with a signal that the kernel sends when the parent dies
(`PR_SET_PDEATHSIG`); elsewhere the child looks every half second whether its parent is still
there.

- A process that forks calls `die_with_parent` first thing in the child.
- A process that starts another program uses `start`, or `launcher` where it calls
  `subprocess.Popen` itself. Both put a launcher in between: this very file, run without site
  packages, which arranges the same and then becomes the program.
- SIGKILL is the signal for what may end at any point, as jobs may; SIGTERM is for what has to
  put its data in order first, as databases do.
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


def die_with_parent(parent_pid: int | None = None, number: signal.Signals = signal.SIGKILL) -> None:
    """Arrange that this process is killed when its parent ends, however that ends.

    On Linux the thread that forked counts as the parent: fork from a thread that lives as long
    as the process. The arrangement survives `exec` but not `fork`.

    Args:
        parent_pid: The parent, taken before the fork. With it, a parent that died in between
            is noticed; without it, the present parent is taken.
        number: The signal it gets.

    Raises:
        OSError: The kernel refused.
    """
    parent = os.getppid() if parent_pid is None else parent_pid
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
            problem = ctypes.get_errno()
            raise OSError(problem, os.strerror(problem))
    else:
        watch_parent(parent, number)
    # The parent may have died before the kernel knew that we care.
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def watch_parent(parent_pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill this process from a thread of its own as soon as the parent is another one.

    Args:
        parent_pid: The process that must stay the parent.
        number: The signal it gets.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_LOOK_EVERY_S)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def launcher(number: signal.Signals = signal.SIGKILL) -> list[str]:
    """What to put before a program and its arguments, so that it ends when this process does.

    On Linux the program ends with the *thread* that starts it: start it from one that lives as
    long. Elsewhere the launcher stays between the two and passes SIGTERM on: end such a process
    by `signal_group`, in a session of its own.

    Args:
        number: The signal that the program gets when this process dies.
    """
    this_file = str(Path(__file__).resolve())
    return [sys.executable, "-I", "-S", this_file, str(os.getpid()), str(int(number))]


def start(
    argv: Sequence[str], *, number: signal.Signals = signal.SIGKILL, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that dies when this process dies.

    Call it from the main thread: on Linux the child ends with the thread that started it.

    Args:
        argv: The program and its arguments; no shell is involved.
        number: The signal that it gets when this process dies.
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
    command = [*launcher(number), *argv]  # no shell, and the caller decides what runs
    return subprocess.Popen(command, start_new_session=True, **options)  # noqa: S603


def stop(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> int:
    """End a process started by `start`, and everything in its session's group.

    Args:
        process: What `start` returned.
        grace_s: Seconds between SIGTERM and SIGKILL.

    Returns:
        The exit status as `Popen.returncode` has it: negative for a signal.
    """
    signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    # Also what the program left behind in its group.
    signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that leads a session, and to all in its group, if any is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def ending(status: int | None) -> str:
    """How a process ended, in words, from what `os.wait4` says; None if nobody knows."""
    if status is None:
        return "ended, nobody knows how"
    if os.WIFSIGNALED(status):
        return f"was killed by signal {os.WTERMSIG(status)}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"


def launch(
    parent_pid: int, number: signal.Signals, argv: Sequence[str], environment: Mapping[str, str]
) -> int:
    """Become the program `argv`, tied to the life of the parent. Runs in the child.

    Args:
        parent_pid: The process that called `launcher` or `start`.
        number: The signal that the program gets when that process dies.
        argv: The program and its arguments.
        environment: What the program gets as its environment.

    Returns:
        An exit status, where the process cannot become the program: 127 if it cannot be
        started, and on systems without `PR_SET_PDEATHSIG` the status of the program.
    """
    try:
        if sys.platform != "linux":
            return _run_watched(parent_pid, number, argv)
        die_with_parent(parent_pid, number)
        os.execvpe(argv[0], list(argv), dict(environment))  # noqa: S606 - the caller's choice
    except OSError as error:
        sys.stderr.write(f"Cannot start {argv[0]}: {error.strerror}\n")
        return 127


def _run_watched(parent_pid: int, number: signal.Signals, argv: Sequence[str]) -> int:
    """Run the program as a child, and send it the signal once the parent is gone."""
    # The caller decides what runs, and which open files it gets.
    child = subprocess.Popen(list(argv), close_fds=False)  # noqa: S603
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_LOOK_EVERY_S)
        if os.getppid() != parent_pid:
            child.send_signal(number)


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), signal.Signals(int(sys.argv[2])), sys.argv[3:], os.environ))
