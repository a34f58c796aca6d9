"""A hundred thousand corrections: how much memory and time it takes to go through them.

Memory is asserted, as it must not grow with the number; time is only shown.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from backend.exports.targets import targets
from backend.newest import newest
from tests.training_hooks.store_samples import PROJECT, correction
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.store import CorrectionStore

COUNT = 100_000
MOST_KIB = 20_000
"""By which the process may grow, whatever the number of corrections."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as server, connect(server.url) as found:
        store = CorrectionStore(found)
        started = time.perf_counter()
        for annotation in range(1, COUNT + 1):
            store.upsert(correction(annotation, annotation, task=annotation))
        took = time.perf_counter() - started
        used = int(found.info("memory")["used_memory"])
        print(f"\n{COUNT:,} stored: {1000 * took / COUNT:.2f} ms each; Redis {used / 1e6:.0f} MB")
        yield found


def walk(what: str, items: Iterable[object]) -> int:
    """Go through all; how many there were, and the memory it took is within bounds."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    count = sum(1 for _ in items)
    took = time.perf_counter() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"\n{what}: {count:,} in {took:.1f} s, {grown} KiB more than before")
    assert grown < MOST_KIB
    return count


def test_listing_takes_the_memory_of_a_page(client: Redis) -> None:
    assert walk("newest first", newest(CorrectionStore(client), [PROJECT])) == COUNT


def test_choosing_what_to_export_takes_the_memory_of_a_page(client: Redis) -> None:
    found = targets(CorrectionStore(client), PROJECT)
    assert walk("targets", (one for one in found if one.target is not None)) == COUNT


def test_statistics_take_no_time(client: Redis) -> None:
    store = CorrectionStore(client)
    started = time.perf_counter()
    assert store.statistics(PROJECT).corrections == COUNT
    print(f"\nstatistics: {1000 * (time.perf_counter() - started):.1f} ms")


def test_the_command_lists_all_in_constant_memory(client: Redis, tmp_path: Path) -> None:
    """The whole process, beside one that lists a single page."""
    peaks = []
    for limit in ("50", "0"):
        with (tmp_path / limit).open("wb") as output:
            subprocess.run(
                [sys.executable, "-m", "backend.cli", "corrections", "list", "--limit", limit],
                env={**os.environ, "SEGZERO_REDIS_URL": _url(client)},
                stdout=output,
                check=True,
            )
        # The greatest of all children so far: the second is only seen if it is greater.
        peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    lines = (tmp_path / "0").read_bytes().count(b"\n")
    print(f"\nsegzero corrections list: {peaks[0]} KiB for 50, {peaks[1]} KiB for {lines - 1:,}")
    assert lines == COUNT + 1
    assert peaks[1] - peaks[0] < MOST_KIB


def _url(client: Redis) -> str:
    return f"unix://{client.connection_pool.connection_kwargs['path']}"
