"""A process that is kept running."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final, Protocol

from training_hooks import processes

_LONGEST_LINE: Final = 1024 * 1024
_TAIL_LINES: Final = 15
_LAST_WORDS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended.

    Attributes:
        how: In words, as in "serve *was killed by SIGKILL*".
        code: Its exit code, negative for a signal; None if it never ran.
    """

    how: str
    code: int | None

    @classmethod
    def of(cls, code: int) -> Ending:
        """From what `Popen.returncode` says."""
        if code >= 0:
            return cls(f"ended with exit code {code}", code)
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return cls(f"was killed by {name}", code)


class Service(Protocol):
    """Something that the supervisor starts, looks at, and stops; called from its thread only."""

    @property
    def name(self) -> str:
        """What it is called in the log."""

    @property
    def grace_s(self) -> float:
        """Seconds it gets to end by itself when it is told to."""

    @property
    def hurried_grace_s(self) -> float:
        """The same when there is no patience left."""

    @property
    def where(self) -> str:
        """Where it runs, for the log."""

    def start(self) -> None:
        """Start it, without waiting until it is ready."""

    def is_ready(self) -> bool:
        """Whether what needs it can be started."""

    def ending(self) -> Ending | None:
        """How it ended; None while it starts or runs."""

    def last_words(self) -> str:
        """The last lines it wrote."""

    def ask_to_stop(self) -> None:
        """Tell it to end; may be repeated."""

    def kill(self) -> None:
        """End it at once."""

    def close(self) -> None:
        """Let go of what it holds; called when it has ended for good."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command to be kept running.

    Attributes:
        name: What it is called in the log.
        command: The program and its arguments.
        env: Its whole environment.
        grace_s: Seconds it gets to end by itself.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    grace_s: float


class ProgramService:
    """Runs a program; what it writes goes on, line by line.

    It is killed when this process dies, as nothing it does needs a clean end.

    Args:
        program: What to run.
        write: Called with its name and each line it writes, from a thread of its own.
        on_start: Called after each start.
    """

    hurried_grace_s = 3.0

    def __init__(
        self,
        program: Program,
        write: Callable[[str, str], None],
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = program.name
        self.grace_s = program.grace_s
        self._program = program
        self._write = write
        self._on_start = on_start
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._is_cleared = False

    @property
    def where(self) -> str:
        """Its process id."""
        return "not started" if self._process is None else f"pid {self._process.pid}"

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: The system has no room for another process.
        """
        self._tail.clear()
        self._is_cleared = False
        self._process = processes.start(
            self._program.command,
            env=dict(self._program.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if self._process.stdout is not None:
            self._reader = threading.Thread(
                target=self._read,
                args=(self._process.stdout, self._tail),
                name=f"read-{self.name}",
                daemon=True,
            )
            self._reader.start()
        self._on_start()

    def is_ready(self) -> bool:
        """At once: nothing waits for a program."""
        return True

    def ending(self) -> Ending | None:
        """How it ended; None while it runs. What it left behind in its group ends, too."""
        if self._process is None or self._process.poll() is None:
            return None
        if not self._is_cleared:
            self._is_cleared = True
            processes.signal_group(self._process.pid, signal.SIGKILL)
        return Ending.of(self._process.returncode)

    def last_words(self) -> str:
        """The last lines it wrote; waits a moment for those still on their way."""
        if self._reader is not None:
            self._reader.join(_LAST_WORDS_S)
        return "\n".join(self._tail)

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the program itself: what it started is its to stop."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it and all in its group at once."""
        if self._process is not None:
            processes.stop(self._process, grace_s=0.0)

    def close(self) -> None:
        """Wait a moment for its last lines."""
        self.last_words()

    def _read(self, pipe: IO[bytes], tail: deque[str]) -> None:
        # What the program leaves behind may hold the pipe open: nobody waits for its end.
        with pipe:
            while piece := pipe.readline(_LONGEST_LINE):
                line = piece.decode("utf-8", "replace").rstrip("\n")
                tail.append(line)
                self._write(self.name, line)
