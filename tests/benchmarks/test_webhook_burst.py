"""Ten thousand webhooks at once: how soon they are answered, and how soon they are stored."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.backend.intake_world import World, encode, memory_of, saved, share

COUNT = 10_000
PEOPLE = 16


def test_ten_thousand_webhooks(tmp_path: Path) -> None:
    bodies = [encode(saved(number)) for number in range(1, COUNT + 1)]
    with World(tmp_path) as world:
        world.redis.start()
        world.start_backend()
        world.start_worker()
        assert world.backend is not None
        before = memory_of(world.backend.pid)
        started = time.monotonic()
        with ThreadPoolExecutor(PEOPLE) as people:
            parts = people.map(world.send, share(bodies, PEOPLE))
            times = sorted(one for part in parts for one in part)
        sent_s = time.monotonic() - started
        grown = (memory_of(world.backend.pid) - before) / 2**20
        world.wait_until_done(3600)
        stored_s = time.monotonic() - started
        print(
            f"\n{COUNT} webhooks of {len(bodies[0])} bytes over {PEOPLE} connections: "
            f"sent in {sent_s:.0f} s, p50 {1000 * times[COUNT // 2]:.0f} ms, "
            f"p99 {1000 * times[int(0.99 * COUNT)]:.0f} ms, slowest {1000 * times[-1]:.0f} ms; "
            f"all stored after {stored_s:.0f} s; the backend grew by {grown:.0f} MiB"
        )
        assert len(world.stored()) == COUNT
        assert times[int(0.99 * COUNT)] < 1.0
