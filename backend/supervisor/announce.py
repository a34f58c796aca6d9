"""Says when the backend answers."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from backend.ready import ask_backend
from backend.settings import Settings

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.5


class Announcer:
    """Logs one line when predictions can be asked for, after each start of the backend.

    Args:
        settings: Where the backend listens.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waits = threading.Event()

    def watch(self) -> None:
        """Wait for the backend from now on, in a thread of its own; does nothing if it does."""
        if not self._waits.is_set():
            self._waits.set()
            threading.Thread(target=self._wait, name="wait-for-serve", daemon=True).start()

    def _wait(self) -> None:
        problem = ""
        while True:
            found = ask_backend(self._settings)
            if found.state == "ready":
                break
            if found.detail and found.detail != problem:
                problem = found.detail
                _log.error("serve cannot load its model: %s", problem)
            time.sleep(_POLL_S)
        self._waits.clear()
        _log.info("ready: %s (%s)", found.address, found.model_version)
