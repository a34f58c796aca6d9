"""Which annotations were in the list: kept here, or in Redis for a run in several jobs.

Redis key: `segzero:reconcile:{run}:seen`, a set of annotation ids; expires after a day.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final, Protocol

from redis import Redis

from training_hooks.redis_client import redis_errors

_KEPT_S: Final = 24 * 3600


class Seen(Protocol):
    """Ids that are added first and asked for afterwards."""

    def add(self, ids: Sequence[int]) -> None:
        """Remember ids, from 1 to 2^63 - 1; any number of times."""

    def lacking(self, ids: Sequence[int]) -> list[int]:
        """Those of the ids that were never added."""


class SeenHere:
    """In this process's memory, in eight bytes each."""

    def __init__(self) -> None:
        self._ids = array("q")
        self._is_sorted = True

    def add(self, ids: Sequence[int]) -> None:
        """See `Seen`."""
        self._ids.extend(ids)
        self._is_sorted = False

    def lacking(self, ids: Sequence[int]) -> list[int]:
        """See `Seen`."""
        if not self._is_sorted:
            self._ids = array("q", sorted(self._ids))
            self._is_sorted = True
        return [number for number in ids if not self._has(number)]

    def _has(self, number: int) -> bool:
        at = bisect_left(self._ids, number)
        return at < len(self._ids) and self._ids[at] == number


class SeenInRedis:
    """In Redis, for all jobs of a run. All methods raise `StoreError` when it fails.

    Args:
        client: The Redis.
        run: Which run.
    """

    def __init__(self, client: Redis, run: str) -> None:
        self._client = client
        self._key = f"segzero:reconcile:{run}:seen"

    def add(self, ids: Sequence[int]) -> None:
        """See `Seen`."""
        if not ids:
            return
        with redis_errors("remembering annotations"), self._client.pipeline() as pipe:
            pipe.sadd(self._key, *ids)
            pipe.expire(self._key, _KEPT_S)
            pipe.execute()

    def lacking(self, ids: Sequence[int]) -> list[int]:
        """See `Seen`."""
        if not ids:
            return []
        with redis_errors("looking for annotations"):
            found: Any = self._client.smismember(self._key, list(ids))
        return [number for number, there in zip(ids, found, strict=True) if not there]

    def forget(self) -> None:
        """Remove all of it."""
        with redis_errors("forgetting annotations"):
            self._client.delete(self._key)
