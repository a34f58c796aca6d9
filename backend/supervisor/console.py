"""The one place that writes to the terminal or the log, line by line, whoever says it."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Final, TextIO

from backend.logs import JsonFormatter
from backend.supervisor.lines import for_machines, for_people

OWN_NAME: Final = "up"

_COLOURS: Final = (36, 33, 32, 35, 34)  # cyan, yellow, green, magenta, blue
_QUIET: Final = ("httpx", "httpcore")  # they log whole addresses


class Console:
    """Writes lines with the name of the process that they come from.

    Args:
        stream: Where to.
        people: Text instead of JSON.
        colour: Colour the names.
        names: The processes there will be, for their colours and a column as wide as the longest.
    """

    def __init__(
        self, stream: TextIO, *, people: bool, colour: bool, names: tuple[str, ...] = ()
    ) -> None:
        self._stream = stream
        self._people = people
        self._colour = colour
        self._names = (OWN_NAME, *names)
        self._width = max(map(len, self._names))
        self._lock = threading.Lock()

    def write(self, name: str, line: str) -> None:
        """Write what a process said."""
        if not line.strip():
            return
        if self._people:
            lines = [self._prefix(name) + part for part in for_people(line)]
        else:
            lines = [for_machines(name, line)]
        # Whoever listened may be gone; the processes go on, and must not wait for a reader.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write("".join(f"{part}\n" for part in lines))
            self._stream.flush()

    def _prefix(self, name: str) -> str:
        shown = f"{name:<{self._width}} |"
        if not self._colour:
            return f"{shown} "
        number = self._names.index(name) if name in self._names else 0
        return f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{shown}\x1b[0m "


class _ConsoleHandler(logging.Handler):
    """Writes this process's own log to a console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._console.write(OWN_NAME, self.format(record))


def log_to(console: Console) -> None:
    """Send every log and warning of this process to a console. Called once, by `segzero up`."""
    logging.basicConfig(level=logging.INFO, handlers=[_ConsoleHandler(console)], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
