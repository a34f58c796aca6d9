"""Connections to Redis: short waits, a few retries, and its errors translated in one place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)
from redis.retry import Retry

from segzero_ml.errors import ConfigError, StoreError

OLDEST_VERSION: Final = (6, 2)
"""Servers older than this are refused."""

_SCHEMES: Final = ("redis", "rediss", "unix")
_PLAIN_URL: Final = re.compile(
    r"(?P<scheme>redis|rediss|unix)://(?:[^@/?#]*@)?"
    r"(?P<place>(?:\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::\d+)?(?:/\d*)?|/[^?#]*)(?:\?.*)?"
)
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_HEALTH_CHECK_S: Final = 30


def connect(
    address: str | Path, *, timeout_s: float = 5.0, retries: int = 3, name: str = "segzero"
) -> Redis:
    """Make a client; nothing is sent yet, so that Redis may be down.

    A command whose connection breaks is sent again: it may then run twice, which everything
    this project sends to Redis bears. A connection that was idle is tried before it is used.
    Replies are bytes, as RQ needs them.

    Args:
        address: `redis://`, `rediss://` or `unix://` URL, or the path of a socket.
        timeout_s: Longest wait for a connection, and for each reply.
        retries: How often a command is sent again.
        name: What the server's list of clients calls this one.

    Raises:
        ConfigError: The address cannot be understood.
    """
    url = _as_url(address)
    try:
        return Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=_HEALTH_CHECK_S,
            retry=Retry(
                ExponentialWithJitterBackoff(cap=_LONGEST_PAUSE_S, base=_FIRST_PAUSE_S), retries
            ),
            client_name=name,
        )
    except (ValueError, TypeError):
        # What redis-py says about it may quote the password: hence "from None".
        raise ConfigError(
            f"The address of Redis cannot be understood: {redacted(url)}.",
            "It looks like redis://:PASSWORD@HOST:6379/0 or unix:///path/to/redis.sock; in a "
            "password, write / as %2F, ? as %3F, # as %23, @ as %40 and % as %25.",
        ) from None


def redacted(address: str | Path) -> str:
    """The address without its password, for messages and logs."""
    text = str(address)
    if text.startswith("/") or not ("://" in text or "@" in text):
        return text
    # Only what certainly holds no part of a password is shown.
    plain = _PLAIN_URL.fullmatch(text)
    return f"{plain['scheme']}://{plain['place']}" if plain else "(hidden, it may hold a password)"


@contextmanager
def redis_errors(doing: str) -> Iterator[None]:
    """Turn what redis-py raises into `StoreError`.

    Args:
        doing: What is being done, as in "Redis failed while *storing a correction*".

    Raises:
        StoreError: Redis does not answer, refuses, or has no room.
    """
    try:
        yield
    except RedisError as error:
        raise _translated(error, doing) from error


def probe(client: Redis) -> tuple[str, ...]:
    """Check that Redis answers and can be relied on.

    Returns:
        What about its settings may lose data, a sentence each; empty when nothing does.

    Raises:
        StoreError: It does not answer, refuses, or is older than `OLDEST_VERSION`.
    """
    with redis_errors("being asked for its version"):
        info: dict[str, Any] = client.info()
    version = str(info.get("redis_version", "0"))
    if _version(version) < OLDEST_VERSION:
        raise StoreError(
            f"Redis {version} is too old.",
            f"Use Redis {'.'.join(map(str, OLDEST_VERSION))} or newer, or any Valkey.",
        )
    warnings = []
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        warnings.append(
            f"Redis throws data away when memory runs out (maxmemory-policy "
            f"{info['maxmemory_policy']}): set it to noeviction."
        )
    if not info.get("aof_enabled"):
        warnings.append("Redis keeps no append-only file (set appendonly yes): a crash loses data.")
    return tuple(warnings)


def wait_until_on_disk(client: Redis, timeout_s: float) -> bool:
    """Wait until everything that Redis acknowledged so far would survive a loss of power.

    With `appendfsync everysec` that takes up to a second. Whoever holds the only other copy
    of something (a spool) calls this before letting go of it.

    Returns:
        Whether it is on disk; False as well where the server cannot tell (before Redis 7.2,
        or without an append-only file).

    Raises:
        StoreError: Redis does not answer or refuses.
    """
    with redis_errors("waiting for its disk"), client.pipeline(transaction=False) as pipe:
        # WAITAOF counts from the last write of its own connection: hence a write before it.
        pipe.incr("segzero:on-disk")
        pipe.execute_command(  # type: ignore[no-untyped-call]
            "WAITAOF", 1, 0, _reply_limit_ms(client, timeout_s)
        )
        replies: list[Any] = pipe.execute(raise_on_error=False)
    if isinstance(replies[0], RedisError):
        raise _translated(replies[0], "waiting for its disk") from replies[0]
    return isinstance(replies[1], list) and replies[1][0] == 1


def _reply_limit_ms(client: Redis, timeout_s: float) -> int:
    """`timeout_s`, but less than the client waits for a reply."""
    patience = client.connection_pool.connection_kwargs.get("socket_timeout") or timeout_s
    return max(1, int(1000 * min(timeout_s, 0.9 * float(patience))))


def _as_url(address: str | Path) -> str:
    text = str(address)
    if "://" not in text and text.startswith("/"):
        return f"unix://{quote(text)}"
    scheme = text.partition("://")[0]
    if scheme not in _SCHEMES or "://" not in text:
        raise ConfigError(
            f"The address of Redis cannot be understood: {redacted(text)}.",
            "It is a redis://, rediss:// or unix:// URL, or the full path of a socket.",
        )
    return text


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _translated(error: RedisError, doing: str) -> StoreError:
    said = str(error).rstrip(".") or type(error).__name__
    # Inside a script, servers before Redis 7 wrap the reason in a longer text.
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in said:
        return StoreError(
            f"Redis has no memory left ({doing}).",
            "Raise its maxmemory or free memory; what was acknowledged is kept.",
        )
    if "MISCONF" in said:
        return StoreError(
            f"Redis cannot write to its disk ({doing}): {said}.",
            "Free space on the disk that holds its data.",
        )
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return StoreError(
            f"Redis refuses access ({doing}): {said}.", "Check the password in its address."
        )
    if isinstance(error, BusyLoadingError):
        return StoreError(f"Redis is still loading its data ({doing}).", "Try again in a while.")
    if isinstance(error, ReadOnlyError):
        return StoreError(
            f"This Redis is a read-only replica ({doing}).", "Use the address of its primary."
        )
    if isinstance(error, ConnectionError | TimeoutError):
        return StoreError(
            f"Redis does not answer ({doing}): {said}.",
            "Start it, or check its address.",
        )
    return StoreError(f"Redis failed while {doing}: {said}.")
