"""Runs the app until it is told to stop."""

from __future__ import annotations

import math
import sys
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from backend.app import create_app
from backend.data_folder import note_preset
from backend.logs import configure_logging
from backend.services import Services
from backend.settings import Settings, check_exposure

_KEEP_ALIVE_S: Final = 75
_GRACE_S: Final = 1
"""Calls end by themselves when the drain ends. With its default this stays below 10 s."""


class Server(uvicorn.Server):
    """uvicorn that tells the app at the first signal, so that running calls end in time.

    Args:
        app: An app of `create_app`.
        settings: The address to listen on, and the time that running calls get.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(settings.drain_s) + _GRACE_S,
            )
        )
        self._services: Services = app.state.services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not ready any more, then drain, then exit."""
        self._services.predictor.begin_drain()
        super().handle_exit(sig, frame)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: The settings are unsafe, or name an unknown preset or a malformed token.
        SpoolError: The data folder cannot be used, or another backend uses it.
    """
    check_exposure(settings)
    app = create_app(settings)
    app.state.services.intake.open()
    configure_logging(for_people=sys.stderr.isatty())
    note_preset(settings)
    Server(app, settings).run()
