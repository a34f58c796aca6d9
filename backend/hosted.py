"""The server's predictor for another host: started once, called from any thread."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from typing import Any, Final

from backend.app import create_app
from backend.call import Reply
from backend.errors import UnavailableError
from backend.protocol import PredictBody, SetupBody, check
from backend.services import Services
from backend.settings import Settings, load_settings

_OVER_DEADLINE_S: Final = 15.0
"""How much longer than its own deadline a call may take before it is given up."""


class Hosted:
    """One model thread and one event loop, for the life of the process.

    Args:
        settings: As those of `segzero serve`; address, login and webhook secret are the host's
            business.

    Raises:
        ConfigError: The preset is unknown or the Label Studio token is malformed.
    """

    def __init__(self, settings: Settings) -> None:
        self._limit_s = settings.predict_deadline_s + _OVER_DEADLINE_S
        self._services: Services = create_app(settings).state.services
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="segzero-calls", daemon=True).start()
        self._services.model.start()

    def version(self, project: int | None) -> str:
        """The version that answers for a project, or will; at once, also while it loads."""
        return self._services.predictor.version_of(project)

    def versions(self) -> list[str]:
        """Every version that can answer; none while the model loads."""
        return self._services.champions.versions()

    def predict(self, body: Mapping[str, Any]) -> Reply:
        """Answer a call.

        Args:
            body: As Label Studio sends it to `/predict`.

        Raises:
            BodyError: It is not what Label Studio sends.
            UnavailableError: The model is still loading, failed to load, or has too much to do.
        """
        call = self._services.predictor.predict(check(PredictBody, body))
        answer = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return answer.result(self._limit_s)
        except TimeoutError:
            answer.cancel()
            raise UnavailableError("The call was not answered in time.", retry_after_s=10) from None


class _Shared:
    """The process's one, made when it is first asked for.

    Threads do not come along into a forked process, such as a worker of a WSGI server that loads
    the application first: there it is made anew.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosted: Hosted | None = None
        self._pid: int | None = None

    def get(self) -> Hosted:
        with self._lock:
            if self._hosted is None or self._pid != os.getpid():
                self._hosted = Hosted(load_settings())
                self._pid = os.getpid()
            return self._hosted


_shared = _Shared()


def shared() -> Hosted:
    """The process's one, with the settings of the environment; its model loads in a thread.

    Raises:
        ConfigError: A setting is wrong.
    """
    return _shared.get()


def project_of(value: object) -> int | None:
    """The id in Label Studio's `<id>.<created>`; None where it names no project."""
    return check(SetupBody, {"project": value}).project


def check_settings() -> None:
    """Refuse wrong settings, without starting anything.

    Raises:
        ConfigError: A setting is wrong, or the preset is unknown.
    """
    create_app(load_settings())
