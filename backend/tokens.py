"""How this project shows Label Studio who it is: the two kinds of token it issues.

A *legacy token* (40 hex digits) goes into the header as it is. A *personal access token*
is a refresh JWT: it is exchanged at `POST /api/token/refresh/` for an access token that is
valid for five minutes, and only that one goes into the header.

`TokenAuth` sends either kind to the configured Label Studio origin and to no other.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Final

import httpx
from pydantic import SecretStr

from segzero_ml.errors import ConfigError, LabelStudioAuthError, LabelStudioError

ACCESS_LIFETIME_S: Final = 240.0
"""How long an access token is used before it is renewed; Label Studio grants 300 s."""

_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_REMEDY = (
    "Copy it again from Label Studio: Account & Settings, Personal Access Token "
    "(or Legacy Token), and set SEGZERO_LABEL_STUDIO_TOKEN or pass --token."
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_of(url: httpx.URL | str) -> tuple[str, str, int]:
    """The origin of a URL: scheme, lower-case host and port (the default one filled in).

    Raises:
        httpx.InvalidURL: `url` is text that is no URL.
    """
    parsed = httpx.URL(url)
    port = parsed.port
    if port is None:
        port = _DEFAULT_PORTS.get(parsed.scheme, 0)
    return parsed.scheme, parsed.host.lower().rstrip("."), port


def is_personal_access_token(token: str) -> bool:
    """Whether a token is a personal access token (a JWT) rather than a legacy one."""
    return _JWT.fullmatch(token) is not None


class TokenAuth(httpx.Auth):
    """httpx authentication with a Label Studio token of either kind.

    Requests to another origin than Label Studio's pass without the token. An access token
    is renewed when it is `ACCESS_LIFETIME_S` old, and once when Label Studio answers 401.
    Use it in a client that does not follow redirects by itself: httpx would post the token
    on to wherever a 307 points.

    Args:
        base_url: Address of Label Studio, including a path prefix if it is served under one.
        token: The legacy or personal access token.
        clock: Seconds on a clock that never goes back.

    Raises:
        ConfigError: The token is empty or holds characters that no token has.
    """

    def __init__(
        self,
        base_url: str,
        token: SecretStr | str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        secret = token.get_secret_value() if isinstance(token, SecretStr) else token
        secret = secret.strip()
        if not _PRINTABLE.fullmatch(secret):
            raise ConfigError("The Label Studio token is empty or malformed.", _REMEDY)
        self._token = SecretStr(secret)
        self._refresh_url = httpx.URL(base_url.rstrip("/") + "/api/token/refresh/")
        self._origin = origin_of(self._refresh_url)
        self._clock = clock
        self._access: tuple[SecretStr, float] | None = None

    def __repr__(self) -> str:
        """The kind and the address; never the token."""
        kind = "personal access token" if self.is_personal else "legacy token"
        return f"TokenAuth({kind} for {self._origin[0]}://{self._origin[1]}:{self._origin[2]})"

    @property
    def is_personal(self) -> bool:
        """Whether the token is a personal access token."""
        return is_personal_access_token(self._token.get_secret_value())

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """The hook of a synchronous httpx client."""
        flow = self.auth_flow(request)
        outgoing = next(flow)
        while True:
            response = yield outgoing
            if outgoing is not request:
                response.read()
            try:
                outgoing = flow.send(response)
            except StopIteration:
                return

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """The hook of an asynchronous httpx client."""
        flow = self.auth_flow(request)
        outgoing = next(flow)
        while True:
            response = yield outgoing
            if outgoing is not request:
                await response.aread()
            try:
                outgoing = flow.send(response)
            except StopIteration:
                return

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """The exchange with Label Studio; only replies to its own requests are read.

        Raises:
            LabelStudioAuthError: Label Studio refuses to exchange the token.
            LabelStudioError: The exchange failed for another reason.
        """
        if origin_of(request.url) != self._origin:
            yield request
            return
        if not self.is_personal:
            request.headers["Authorization"] = f"Token {self._token.get_secret_value()}"
            yield request
            return
        fresh = False
        access = self._cached_access()
        if access is None:
            access = self._store_access((yield self._refresh_request()))
            fresh = True
        request.headers["Authorization"] = f"Bearer {access}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED and not fresh:
            access = self._store_access((yield self._refresh_request()))
            request.headers["Authorization"] = f"Bearer {access}"
            yield request

    def _cached_access(self) -> str | None:
        if self._access is None or self._clock() >= self._access[1]:
            return None
        return self._access[0].get_secret_value()

    def _refresh_request(self) -> httpx.Request:
        return httpx.Request(
            "POST", self._refresh_url, json={"refresh": self._token.get_secret_value()}
        )

    def _store_access(self, response: httpx.Response) -> str:
        if response.status_code in {
            httpx.codes.BAD_REQUEST,
            httpx.codes.UNAUTHORIZED,
            httpx.codes.FORBIDDEN,
        }:
            raise LabelStudioAuthError(
                "Label Studio does not accept the personal access token: "
                "it is wrong, expired or revoked.",
                _REMEDY,
            )
        try:
            access = response.json()["access"] if response.is_success else None
        except (ValueError, KeyError, TypeError):
            access = None
        if not isinstance(access, str) or not _PRINTABLE.fullmatch(access):
            raise LabelStudioError(
                f"Label Studio answered {response.status_code} to {self._refresh_url.path} "
                "and gave no access token.",
                "Check that SEGZERO_LABEL_STUDIO_URL is the address of a Label Studio.",
            )
        self._access = (SecretStr(access), self._clock() + ACCESS_LIFETIME_S)
        return access
