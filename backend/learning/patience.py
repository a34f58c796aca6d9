"""Waits for Redis where something is done that must not get lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from segzero_ml.errors import StoreError

_log = logging.getLogger(__name__)

T = TypeVar("T")

LIMIT_S: Final = 3600.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 5.0


def patiently(do: Callable[[], T], limit_s: float = LIMIT_S) -> T:
    """Do it as soon as Redis is there.

    Args:
        do: Safe to repeat.
        limit_s: Seconds after which its error is raised.

    Raises:
        StoreError: Redis was away for too long.
    """
    give_up, pause = time.monotonic() + limit_s, _FIRST_PAUSE_S
    while True:
        try:
            return do()
        except StoreError as error:
            if time.monotonic() > give_up:
                raise
            _log.warning("Waiting for Redis: %s", error.message)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
