"""Asking again when Label Studio fails in a way that may pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx

from backend.label_studio_http import LabelStudioApiError, LabelStudioTooLargeError
from segzero_ml.errors import LabelStudioAuthError, LabelStudioError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to ask again, and how long to wait before.

    Args:
        tries: How often one thing is asked for at most.
        first_pause_s: Seconds before the second try; each further pause is twice as long.
        longest_pause_s: Longest pause, in seconds.
        sleep: Waits so many seconds.
    """

    tries: int = 5
    first_pause_s: float = 0.5
    longest_pause_s: float = 8.0
    sleep: Callable[[float], object] = time.sleep

    def call(self, ask: Callable[[], T]) -> T:
        """What `ask` returns, after as many tries as it takes and as there are.

        Raises:
            LabelStudioError: The last try failed, or one in a way that does not pass.
        """
        pause = self.first_pause_s
        for _ in range(self.tries - 1):
            try:
                return ask()
            except LabelStudioError as error:
                if not may_pass(error):
                    raise
            self.sleep(pause)
            pause = min(2 * pause, self.longest_pause_s)
        return ask()


def may_pass(error: LabelStudioError) -> bool:
    """Whether the same call may succeed later: the server is away, overloaded or confused."""
    if isinstance(error, LabelStudioApiError):
        return error.status >= httpx.codes.INTERNAL_SERVER_ERROR or error.status in (
            httpx.codes.REQUEST_TIMEOUT,
            httpx.codes.TOO_MANY_REQUESTS,
        )
    return not isinstance(error, LabelStudioAuthError | LabelStudioTooLargeError)
