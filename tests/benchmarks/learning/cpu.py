"""The processor's time that a round takes, read from /proc while it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

ROUND: Final = b"training_hooks.round"
_EVERY_S: Final = 1.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class CpuWatch:
    """Adds up the seconds of all processes of rounds below a process. A context manager.

    What a process uses in the second before its end may be missed.

    Args:
        root: The process id below which they are sought.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._seconds: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Seconds of all of them so far."""
        return sum(self._seconds.values())

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            for pid in below(self._root):
                try:
                    if ROUND in Path(f"/proc/{pid}/cmdline").read_bytes():
                        self._seconds[pid] = cpu_seconds(pid)
                except OSError:  # it has just ended
                    continue


def below(pid: int) -> Iterator[int]:
    """All processes below one; some are started by threads, whose children are listed apart."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        found = [int(one) for each in threads for one in (each / "children").read_text().split()]
    except OSError:
        return
    for child in found:
        yield child
        yield from below(child)


def cpu_seconds(pid: int) -> float:
    """Seconds of a process and of its children that have ended.

    Raises:
        OSError: There is no such process.
    """
    # The name, in brackets, may hold anything; the fields after it are numbered from 3.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS
