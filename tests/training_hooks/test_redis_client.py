"""Addresses, and what becomes of the errors of redis-py."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis import exceptions as redis_exceptions

from segzero_ml.errors import ConfigError, StoreError
from training_hooks.redis_client import connect, probe, redacted, redis_errors
from training_hooks.redis_server import EmbeddedServer


def test_a_client_is_made_while_redis_is_down() -> None:
    with connect("redis://127.0.0.1:1/0", retries=0, timeout_s=0.5) as client:  # noqa: SIM117
        with pytest.raises(StoreError, match="does not answer"):
            probe(client)


def test_a_path_is_the_path_of_a_socket(redis_server: EmbeddedServer) -> None:
    with connect(redis_server.folder / "redis.sock") as client:
        assert client.ping()
    with connect(str(redis_server.folder / "redis.sock")) as client:
        assert client.ping()


@pytest.mark.parametrize(
    "address",
    ["", "localhost", "localhost:6379", "http://x", "redis", "relative/path", "redis://h:port/0"],
)
def test_an_address_that_makes_no_sense_is_a_wrong_setting(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot be understood"):
        connect(address)


@given(st.text("abcXYZ0189%:/?#[]", min_size=1).map(lambda text: f"SECRET{text}SECRET"))
def test_a_password_is_never_shown(password: str) -> None:
    for address in (
        f"redis://:{password}@host:1/0",
        f"rediss://me:{password}@host/0?a=b",
        f"redis://host/0?password={password}",
        f"unix:///s?password={password}",
        f"http://:{password}@host",
        f"me:{password}@host",
    ):
        assert "SECRET" not in redacted(address)
        try:
            connect(address).close()
        except ConfigError as error:
            assert "SECRET" not in str(error)
            assert error.__cause__ is None
            assert error.__suppress_context__ or error.__context__ is None


def test_the_rest_of_an_address_is_shown() -> None:
    for plain in ("redis://host:6379/2", "rediss://[::1]:6379", "unix:///a%20b/redis.sock"):
        assert redacted(plain) == plain
    assert redacted("redis://me:secret@host:1/0?x=y") == "redis://host:1/0"
    assert redacted(Path("/a/redis.sock")) == "/a/redis.sock"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (redis_exceptions.OutOfMemoryError("OOM"), "no memory left"),
        (
            redis_exceptions.ResponseError(
                "Error running script (call to f_3b21): @user_script:10: @user_script: 10: "
                "-OOM command not allowed when used memory > 'maxmemory'."
            ),
            "no memory left",
        ),
        (redis_exceptions.ResponseError("MISCONF Errors writing to the AOF"), "write to its disk"),
        (redis_exceptions.AuthenticationError("WRONGPASS"), "password"),
        (redis_exceptions.NoPermissionError("NOPERM"), "refuses access"),
        (redis_exceptions.BusyLoadingError("LOADING"), "still loading"),
        (redis_exceptions.ReadOnlyError("READONLY"), "read-only replica"),
        (redis_exceptions.ConnectionError("gone"), "does not answer"),
        (redis_exceptions.TimeoutError(), "does not answer"),
        (redis_exceptions.ResponseError("ERR odd"), "failed while testing: ERR odd"),
    ],
)
def test_every_error_of_redis_becomes_one_of_the_store(
    error: redis_exceptions.RedisError, said: str
) -> None:
    with pytest.raises(StoreError, match=said) as raised, redis_errors("testing"):
        raise error
    assert "testing" in raised.value.message
    assert raised.value.__cause__ is error


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(KeyError), redis_errors("testing"):
        raise KeyError("x")


def test_settings_that_lose_data_are_pointed_out(redis_client: Redis) -> None:
    assert probe(redis_client) == ()
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    redis_client.config_set("appendonly", "no")
    try:
        evicts, forgets = probe(redis_client)
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
        redis_client.config_set("appendonly", "yes")
    assert "allkeys-lru" in evicts
    assert "appendonly" in forgets


@pytest.mark.parametrize(("version", "fine"), [("6.0.16", False), ("5", False), ("6.2.0", True)])
def test_a_server_that_is_too_old_is_refused(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch, version: str, fine: bool
) -> None:
    answer = {"redis_version": version, "aof_enabled": 1}
    monkeypatch.setattr(redis_client, "info", lambda: answer)
    if fine:
        assert probe(redis_client) == ()
    else:
        with pytest.raises(StoreError, match="too old"):
            probe(redis_client)
