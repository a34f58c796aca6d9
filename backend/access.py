"""Who may call, and how much they may send."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from typing import Final

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from backend.settings import Settings

SECRET_HEADER: Final = "X-SegZero-Secret"  # noqa: S105 - a name, not a secret
"""Header in which webhooks carry the secret: the only way to guard them in Label Studio."""

BODY_TIMEOUT_S: Final = 60.0


class Guard:
    """Checks logins and webhook secrets in constant time.

    Args:
        settings: User name, password and secret; without them everybody may call.
    """

    def __init__(self, settings: Settings) -> None:
        self._logins: list[bytes] = []
        if settings.password is not None:
            login = f"{settings.user}:{settings.password.get_secret_value()}"
            # Clients disagree on the encoding: Label Studio's sends Latin-1.
            self._logins = [
                login.encode(encoding, errors="replace") for encoding in ("utf-8", "latin-1")
            ]
        secret = settings.webhook_secret
        self._secret = None if secret is None else secret.get_secret_value().encode()

    def check_login(self, request: Request) -> None:
        """Refuse a call without the login, if one is set.

        Raises:
            HTTPException: 401.
        """
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
            HTTPException: 401.
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


def _declared(request: Request) -> int:
    value = request.headers.get("Content-Length", "0")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else 0
