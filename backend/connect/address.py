"""Where Label Studio finds the backend, and which addresses cannot work."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from segzero_ml.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BackendAccess:
    """How Label Studio reaches the backend.

    Args:
        url: Its address, as Label Studio's machine sees it.
        user: User name that it asks for, or None.
        password: Password that it asks for, or None.
        webhook_secret: What its webhooks must carry, or None.
    """

    url: str
    user: str | None = None
    password: SecretStr | None = None
    webhook_secret: SecretStr | None = None

    @property
    def webhook_url(self) -> str:
        """Where Label Studio sends what annotators do."""
        return f"{self.url}/webhook"

    def is_backend(self, url: str) -> bool:
        """Whether an address that Label Studio holds is this backend's."""
        return _same(url, self.url)

    def is_webhook(self, url: str) -> bool:
        """Whether an address that Label Studio holds is this backend's webhook."""
        return _same(url, self.webhook_url)


def check_backend_url(url: str) -> str:
    """The backend's address without a trailing slash.

    Raises:
        ConfigError: It is no address, or one that Label Studio drops the webhooks of.
    """
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ConfigError(
            f"The backend's address {url!r} is not an http address.",
            "Give it as --backend-url http://127.0.0.1:9090.",
        )
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigError(
            "The backend's address must not hold a user name, a query or a fragment.",
            "Set SEGZERO_USER and SEGZERO_PASSWORD for the login.",
        )
    host = parsed.host
    if "." not in host and host != "localhost" and not _is_ip(host):
        raise ConfigError(
            f"Label Studio would drop the webhooks of {url}: the host name {host!r} has no dot, "
            "so corrections would never arrive.",
            f"Give the host a name with a dot (in Docker Compose, a network alias such as "
            f"{host}.internal), or use its IP address.",
        )
    return str(parsed).rstrip("/")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _same(left: str, right: str) -> bool:
    return left.rstrip("/").lower() == right.rstrip("/").lower()
