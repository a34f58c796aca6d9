"""What the tests of the queues share: a real Valkey, one for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server for tests that leave it as it is; its data does not matter."""
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_client(redis_server: EmbeddedServer) -> Iterator[Redis]:
    """A client of an empty database."""
    with connect(redis_server.url) as client:
        client.flushdb()
        yield client
