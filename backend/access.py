"""Who may call, and how much they may send."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
from typing import Final
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from backend.settings import Settings, is_loopback

_log = logging.getLogger(__name__)

SECRET_HEADER: Final = "X-SegZero-Secret"  # noqa: S105 - a name, not a secret
"""Header in which webhooks carry the secret: the only way to guard them in Label Studio."""

BODY_TIMEOUT_S: Final = 60.0

_MOST_TOLD: Final = 100


class KnownNames:
    """The names under which a backend may be called that asks for no login.

    Listening on this machine only does not keep web pages out that a user of it visits: whoever
    owns a page's host name can have it lead to this machine, and the browser then takes the
    backend for a part of that page. But the browser also says which name it called.

    Args:
        settings: The addresses of the backend, and `allowed_hosts`.
    """

    def __init__(self, settings: Settings) -> None:
        given = (settings.host, settings.backend_url or "", *settings.allowed_hosts)
        self._names = {_host_of(one) for one in given} - {""}
        self._told: set[str] = set()

    def check(self, request: Request) -> None:
        """Refuse a call under another name, or from a web page of another name.

        Raises:
            HTTPException: 421 (called under another name), 403 (from another page).
        """
        called = request.headers.getlist("Host")
        if not called or not all(map(self._is_known, called)):
            name = _host_of(", ".join(called))[:100]
            raise self._refusal(421, f"This backend is not called {name or 'so'}.", name)
        for origin in request.headers.getlist("Origin"):
            if not self._is_known(origin):
                name = _host_of(origin)[:100]
                raise self._refusal(403, "A web page of another host must not call.", name)

    def _is_known(self, address: str) -> bool:
        name = _host_of(address)
        return name in self._names or is_loopback(name)

    def _refusal(self, status: int, message: str, name: str) -> HTTPException:
        detail = (
            f"{message} Call it as 127.0.0.1 or localhost, name the host that is called in its "
            "SEGZERO_ALLOWED_HOSTS (host:port), or set SEGZERO_USER and SEGZERO_PASSWORD."
        )
        if name not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(name)
            fields = {"status": status, "host": name, "reason": detail}
            _log.warning("access.refused", extra={"fields": fields})
        return HTTPException(status, detail)


class Guard:
    """Checks logins and webhook secrets in constant time.

    Args:
        settings: User name, password and secret; without them everybody on this machine may
            call, under one of its `KnownNames`.
    """

    def __init__(self, settings: Settings) -> None:
        self._logins: list[bytes] = []
        if settings.password is not None:
            login = f"{settings.user}:{settings.password.get_secret_value()}"
            # Clients disagree on the encoding: Label Studio's sends Latin-1.
            self._logins = [
                login.encode(encoding, errors="replace") for encoding in ("utf-8", "latin-1")
            ]
        is_open = not self._logins and is_loopback(settings.host)
        self._known = KnownNames(settings) if is_open else None
        secret = settings.webhook_secret
        self._secret = None if secret is None else secret.get_secret_value().encode()

    def check_login(self, request: Request) -> None:
        """Refuse a call without the login if one is set, or else one under an unknown name.

        Raises:
            HTTPException: 401 (no login), 421 or 403 (see `KnownNames`).
        """
        if self._known is not None:
            self._known.check(request)
        if self._logins and not self._has_login(request):
            raise HTTPException(
                401,
                "A user name and a password are needed: SEGZERO_USER and SEGZERO_PASSWORD of "
                "the backend.",
                {"WWW-Authenticate": 'Basic realm="segzero"'},
            )

    def check_webhook(self, request: Request) -> None:
        """Refuse a webhook with neither the secret nor the login, if one of them is set.

        Label Studio sends *Start training* with the login, everything else with the secret.

        Raises:
            HTTPException: 401 (no secret), 421 or 403 (see `KnownNames`).
        """
        if self._secret is None:
            self.check_login(request)
            return
        given = request.headers.get(SECRET_HEADER, "").encode("latin-1")
        has_secret = hmac.compare_digest(given, self._secret)
        if not (has_secret or self._has_login(request)):
            raise HTTPException(401, f"The {SECRET_HEADER} header is missing or wrong.")

    def _has_login(self, request: Request) -> bool:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        try:
            given = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            given = b""
        matches = [hmac.compare_digest(given, login) for login in self._logins]
        return scheme.lower() == "basic" and any(matches)


async def bounded_body(request: Request, max_bytes: int) -> bytes:
    """The body of a call, as far as it is JSON of a bearable size.

    Asking for the content type keeps web pages that a user of this machine visits from
    calling: a browser sends JSON to another origin only after asking for leave.

    Raises:
        HTTPException: 415 (not JSON), 413 (too large), 408 (too slow), 400 (broken off).
    """
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise HTTPException(415, "The body must be sent as Content-Type: application/json.")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            if _declared(request) <= max_bytes:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > max_bytes:
                        break
                else:
                    return bytes(body)
    except TimeoutError:
        raise HTTPException(408, "The body took too long to arrive.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The body broke off.") from None
    raise HTTPException(413, f"The body is over the limit of {max_bytes} bytes.")


def _host_of(address: str) -> str:
    """The host of an address, of `host:port` or of a name; empty where there is none."""
    try:
        found = urlsplit(address if "://" in address else f"//{address}").hostname
    except ValueError:
        return ""
    return (found or "").rstrip(".")


def _declared(request: Request) -> int:
    value = request.headers.get("Content-Length", "0")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else 0
