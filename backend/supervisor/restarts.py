"""When to start again what has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
LASTING_S: Final = 60.0
"""Who lived that long has the first pause again."""

QUICK_S: Final = 30.0
QUICK_FAILURES: Final = 3
_SETTINGS_WRONG: Final = frozenset({1, 2})
"""Exit codes of a command that says what is wrong: an error, a wrong option."""


@dataclass(slots=True)
class Restarts:
    """The pauses of one process, and whether it can start at all."""

    _pause_s: float = FIRST_PAUSE_S
    _quick_failures: int = 0
    _has_worked: bool = False

    def after(self, life_s: float, code: int | None) -> float | None:
        """What to do now that it has ended.

        Args:
            life_s: How long it lived, in seconds.
            code: Its exit code, negative for a signal; None if it never ran.

        Returns:
            Seconds to wait before it is started again; None if that is of no use, as it has
            refused to start three times in a row.
        """
        self._has_worked = self._has_worked or life_s >= QUICK_S
        if code in _SETTINGS_WRONG and not self._has_worked:
            self._quick_failures += 1
            if self._quick_failures >= QUICK_FAILURES:
                return None
        else:
            self._quick_failures = 0
        if life_s >= LASTING_S:
            self._pause_s = FIRST_PAUSE_S
        pause = self._pause_s
        self._pause_s = min(2 * pause, LONGEST_PAUSE_S)
        return pause
