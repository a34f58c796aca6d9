"""Whether the backend of these settings runs on this machine, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx

from backend.settings import Settings

_TIMEOUT_S: Final = 1.0
_LONGEST: Final = 200
_EVERYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104


@dataclass(frozen=True, slots=True)
class BackendView:
    """The backend as seen from here.

    Attributes:
        address: Where it was looked for.
        state: What it says: `ready`, `loading`, `failed`, `draining`; empty if nothing answers.
        model_version: The version it predicts with, if it says one.
        detail: Why it is not ready, if it says so.
    """

    address: str
    state: str = ""
    model_version: str | None = None
    detail: str = ""

    @property
    def runs(self) -> bool:
        """Whether it answers."""
        return bool(self.state)


def ask_backend(settings: Settings, timeout_s: float = _TIMEOUT_S) -> BackendView:
    """Ask `/ready` on this machine; never raises for what answers, or does not.

    Args:
        settings: Its host and port.
        timeout_s: Longest wait in seconds.
    """
    host = _EVERYWHERE.get(settings.host, settings.host)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    address = f"http://{host}:{settings.port}"
    try:
        with httpx.Client(trust_env=False, timeout=timeout_s) as client:
            reply = client.get(f"{address}/ready").json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError):
        return BackendView(address)
    if not isinstance(reply, dict) or not isinstance(reply.get("status"), str):
        return BackendView(address)
    version, detail = reply.get("model_version"), reply.get("detail")
    return BackendView(
        address,
        _shown(reply["status"]),
        _shown(version) if isinstance(version, str) else None,
        _shown(detail) if isinstance(detail, str) else "",
    )


def _shown(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:_LONGEST]
