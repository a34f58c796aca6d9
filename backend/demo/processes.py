"""Starting servers, waiting until they answer, and stopping them for sure."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from segzero_ml.errors import SegZeroError
from training_hooks import processes

LOOPBACK: Final = "127.0.0.1"
TAIL_LINES: Final = 15
_POLL_S: Final = 0.3
_NO_PROXY: Final = ("NO_PROXY", "no_proxy")


class ProcessError(SegZeroError):
    """A program that was started failed, or does not answer."""


class Child:
    """A running program; it ends with this process at the latest.

    Args:
        name: What to call it in messages.
        command: The program and its arguments.
        env: Its whole environment.
        log: File that its output is added to.
        grace_s: Seconds it gets to end by itself when it is stopped.

    Raises:
        ProcessError: It cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        grace_s: float = 10.0,
    ) -> None:
        self.name = name
        self.log = log
        self._grace_s = grace_s
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("ab") as output:
                self._log_start = output.tell()
                # In a session of its own, so that Ctrl-C reaches only us and the order of
                # stopping is ours.
                self._process = processes.start(
                    command,
                    number=signal.SIGTERM,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(env),
                )
        except OSError as error:
            raise ProcessError(f"{name} cannot be started: {error}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to end, and make it after its grace; does nothing if it has ended."""
        if self._process.poll() is None:
            processes.stop(self._process, self._grace_s)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until it ends; its exit code, or None if it still runs."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def output(self) -> str:
        """What it has written so far."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode("utf-8", "replace")

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of its output."""
        return "\n".join(self.output().splitlines()[-lines:])

    def wait_until(
        self,
        url: str,
        timeout_s: float,
        tick: Callable[[float], None] | None = None,
        is_up: Callable[[httpx.Response], bool] = lambda response: response.is_success,
    ) -> None:
        """Wait until an address of it answers as it should.

        Args:
            url: The address.
            timeout_s: Longest wait in seconds.
            tick: Called now and then with the seconds waited.
            is_up: Tells from an answer whether the wait is over; may raise.

        Raises:
            ProcessError: It ended, or did not answer in time; the remedy shows its output.
        """
        started = time.monotonic()
        with httpx.Client(timeout=5.0, trust_env=False) as http:
            while (waited := time.monotonic() - started) < timeout_s:
                if self.exit_code is not None:
                    raise self.failed(f"{self.name} stopped with exit code {self.exit_code}.")
                try:
                    if is_up(http.get(url)):
                        return
                except httpx.TransportError:
                    pass
                if tick is not None:
                    tick(waited)
                time.sleep(_POLL_S)
        raise self.failed(f"{self.name} does not answer at {url} after {timeout_s:.0f} s.")

    def failed(self, message: str) -> ProcessError:
        """The error that something about it failed, with its last words."""
        tail = self.tail() or "(nothing)"
        return ProcessError(message, f"Its last output, from {self.log}:\n{tail}")


def is_free(port: int) -> bool:
    """Whether a port of this machine can be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(preferred: int = 0) -> int:
    """`preferred` if it is free, else any that is."""
    if preferred and is_free(preferred):
        return preferred
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def local_env(
    base: Mapping[str, str], without: Callable[[str], bool] = lambda name: False
) -> dict[str, str]:
    """An environment whose proxy settings leave this machine alone.

    Args:
        base: The environment to start from.
        without: Whether to leave a variable out.
    """
    env = {name: value for name, value in base.items() if not without(name)}
    for name in _NO_PROXY:
        env[name] = ",".join(part for part in (env.get(name), LOOPBACK, "localhost") if part)
    return env
