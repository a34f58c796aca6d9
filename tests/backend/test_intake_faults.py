"""Nothing acknowledged is lost, doubled or back: real processes, and random faults.

The method is that of the Jepsen tests: unique annotations, faults at random moments, and then
what was acknowledged must be in the store in its newest revision, and what was deleted must
not. The numbers are those of the cases in the list of faults.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.backend.annotated import RING, brush
from tests.backend.intake_crowd import Crowd
from tests.backend.intake_world import (
    PATIENCE_S,
    START,
    World,
    deleted,
    encode,
    memory_of,
    project,
    saved,
    share,
    tasks_deleted,
    until,
)
from training_hooks.redis_client import connect

pytestmark = pytest.mark.slow

LONG_S = 3 * PATIENCE_S  # the slowest retry of a job comes after minutes


def address(world: World) -> str:
    return str(world.client.base_url)


def kill_redis(world: World) -> None:
    """Case 4."""
    assert world.redis.pid is not None
    os.kill(world.redis.pid, signal.SIGKILL)
    world.redis.wait(30)
    time.sleep(0.5)
    world.redis.start()


def kill_backend(world: World) -> None:
    assert world.backend is not None
    world.backend.kill()
    world.start_backend()


def kill_worker(world: World) -> None:
    assert world.worker is not None
    world.worker.kill()
    world.start_worker()


@pytest.mark.parametrize("kill", [kill_redis, kill_backend, kill_worker])
def test_what_was_acknowledged_survives_kills_in_the_middle_of_a_burst(
    tmp_path: Path, kill: Callable[[World], None]
) -> None:
    rng = random.Random(kill.__name__)
    with World(tmp_path) as world:
        world.redis.start()
        world.start_backend()
        world.start_worker()
        crowd = Crowd(address(world), seed=len(kill.__name__))
        crowd.start()
        for _ in range(3):
            crowd.wait_for(rng.randrange(20, 120))
            kill(world)
        crowd.stop()
        world.wait_until_done(LONG_S)
        stored = world.stored()
        assert crowd.problems(stored) == []
        assert len(stored) > 20


def test_webhooks_are_taken_while_redis_is_down(tmp_path: Path) -> None:
    """Case 5, in seconds instead of a minute; and before Redis was ever there."""
    with World(tmp_path) as world:
        world.start_backend()
        assert world.post(saved(1)) == 200
        world.redis.start()
        until(lambda: world.spooled == 0, "handed over")
        world.redis.stop()
        crowd = Crowd(address(world), seed=5, people=3, each=40)
        crowd.start()
        crowd.join()
        assert crowd.refused == 0
        assert world.spooled >= 120
        assert world.metric("segzero_spool_records") >= 120
        assert world.client.get("/health", timeout=2).is_success
        world.redis.start()
        world.start_worker()
        world.wait_until_done(LONG_S)
        stored = world.stored()
        assert stored.pop(1) == START
        assert crowd.problems(stored) == []


def test_redis_without_memory_costs_nothing_but_time(tmp_path: Path) -> None:
    """Case 8."""
    with World(tmp_path, redis={"max_memory": 3_500_000}) as world:
        world.redis.start()
        world.start_backend()
        rng = random.Random(8)
        for number in range(1, 301):  # nobody works them off
            noise = brush(RING, meta={"text": [rng.randbytes(10_000).hex()]})
            assert world.post(saved(number, result=[noise])) == 200
        with connect(world.redis.url) as client:
            assert client.info("memory")["used_memory"] > 2_500_000
        assert world.spooled > 0
        assert world.metric("segzero_spool_records") > 0
        with connect(world.redis.url) as client:
            client.config_set("maxmemory", 0)
        world.start_worker()
        world.wait_until_done(LONG_S)
        assert world.stored().keys() == set(range(1, 301))


def test_full_spool_refuses_and_says_so_until_there_is_room(tmp_path: Path) -> None:
    """Case 9, the spool's own limit."""
    with World(tmp_path, SEGZERO_SPOOL_BYTES=str(32 << 20)) as world:
        world.start_backend()
        statuses = {
            number: world.post({**saved(number), "padding": "x" * 1_000_000})
            for number in range(1, 41)
        }
        taken = {number for number, status in statuses.items() if status == 200}
        assert set(statuses.values()) == {200, 507}
        assert len(taken) >= 30
        refused = 40 - len(taken)
        assert world.metric('segzero_webhooks_refused_total{reason="full"}') == refused
        assert world.metric("segzero_spool_full") == 1
        assert world.backend is not None
        assert world.backend.log.read_text().count("Webhooks are refused") == 1
        world.redis.start()
        world.start_worker()
        world.wait_until_done(LONG_S)
        assert world.post({**saved(100), "padding": "x" * 1_000_000}) == 200
        assert world.metric("segzero_spool_full") == 0
        world.wait_until_done(LONG_S)
        assert world.stored().keys() == {*taken, 100}


def test_full_disk_refuses_until_there_is_room(tmp_path: Path) -> None:
    """Case 9, the disk: here a limit on the size of files, which looks the same to the spool."""
    with World(tmp_path) as world:
        world.redis.start()
        world.start_worker()
        world.start_backend()
        assert world.backend is not None
        assert world.post(saved(1)) == 200
        before = resource.prlimit(world.backend.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(world.backend.pid, resource.RLIMIT_FSIZE, (100, before[1]))
        assert [world.post(saved(number)) for number in (2, 3)] == [507, 507]
        assert world.metric("segzero_spool_full") == 1
        assert world.client.get("/health", timeout=2).is_success
        resource.prlimit(world.backend.pid, resource.RLIMIT_FSIZE, before)
        assert world.post(saved(4)) == 200
        world.wait_until_done(LONG_S)
        assert world.stored().keys() == {1, 4}


def test_repeated_shuffled_and_stale_webhooks_leave_the_newest_once(tmp_path: Path) -> None:
    """Cases 13 and 14: every event five times, in any order, deletions before creations too."""
    rng = random.Random(13)
    events: list[dict[str, Any]] = []
    for number in range(1, 61):
        events += [saved(number, revision, of_task=500 + number // 2) for revision in range(4)]
    gone = rng.sample(range(1, 61), 12)
    events += [deleted(number) for number in gone[:8]]
    tasks = [500 + number // 2 for number in gone[8:]]
    events += [tasks_deleted(task) for task in tasks[:2]]
    events += [tasks_deleted(task, with_project=False) for task in tasks[2:]]
    events *= 5
    rng.shuffle(events)
    with World(tmp_path) as world:
        world.redis.start()
        world.start_backend()
        world.start_worker()
        # Somebody has annotated here before: a deletion that names no project finds this one.
        assert world.post(saved(1000)) == 200
        until(lambda: 1000 in world.stored(), "the project is known")
        with ThreadPoolExecutor(4) as people:
            list(people.map(world.send, share([*map(encode, events)], 4)))
        world.wait_until_done(LONG_S)
        stored = world.stored()
    lost = set(gone[:8]) | {n for n in range(1, 61) if 500 + n // 2 in tasks}
    assert stored.pop(1000) == START
    assert stored.keys() == set(range(1, 61)) - lost
    assert {(saved_at - START).total_seconds() for saved_at in stored.values()} == {3.0}


def test_burst_is_answered_in_time_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    """Case 15 with 2,000 events; tests/benchmarks has the 10,000."""
    count = 2000
    with World(tmp_path) as world:
        world.redis.start()
        world.start_backend()
        world.start_worker()
        assert world.backend is not None
        world.send([encode(saved(count + 1))])
        bodies = [encode(saved(number)) for number in range(1, count + 1)]
        before = memory_of(world.backend.pid)
        with ThreadPoolExecutor(8) as people:
            parts = people.map(world.send, share(bodies, 8))
            times = sorted(one for part in parts for one in part)
        assert times[int(0.99 * count)] < 1.0
        assert memory_of(world.backend.pid) - before < 100 << 20
        world.wait_until_done(LONG_S)
        assert world.stored().keys() == set(range(1, count + 2))


def test_record_that_no_job_can_store_keeps_back_no_other(tmp_path: Path) -> None:
    bad = saved(50, result=[brush(RING, original_width=7)])
    with World(tmp_path) as world:
        world.redis.start()
        world.start_backend()
        for number in range(1, 101):
            assert world.post(bad if number == 50 else saved(number)) == 200
        assert world.post({"action": "TASKS_CREATED", "project": project()}) == 200
        world.start_worker()
        world.wait_until_done(LONG_S)
        assert world.stored().keys() == set(range(1, 101)) - {50}
        assert world.dead() == 1


def test_hostile_bodies_are_refused_and_the_rest_is_served(tmp_path: Path) -> None:
    hostile = [
        b"[" * 2_000_000,
        b'{"action": "ANNOTATION_CREATED", "n": NaN}',
        b'{"action": "ANNOTATION_CREATED", "annotation": 5.5}',
        b"\x00\xff",
        b'{"action": "ANNOTATION_CREATED", "n": ' + b"9" * 1_000_000 + b"}",
    ]
    with World(tmp_path, SEGZERO_MAX_BODY_BYTES=str(4 << 20)) as world:
        world.redis.start()
        world.start_backend()
        world.start_worker()
        headers = {"Content-Type": "application/json"}
        replies: list[int] = []

        def attack() -> None:
            with httpx.Client(base_url=address(world), timeout=60) as client:
                for body in hostile:
                    replies.append(
                        client.post("/webhook", content=body, headers=headers).status_code
                    )
                huge = b'{"action": "' + b"x" * (5 << 20) + b'"}'
                replies.append(client.post("/webhook", content=huge, headers=headers).status_code)

        attackers = [threading.Thread(target=attack) for _ in range(3)]
        for attacker in attackers:
            attacker.start()
        for number in range(1, 31):
            assert world.post(saved(number)) == 200
        for attacker in attackers:
            attacker.join(60)
        assert sorted(replies) == [400] * 15 + [413] * 3
        world.wait_until_done(LONG_S)
        assert world.stored().keys() == set(range(1, 31))
        assert world.metric("segzero_events_unreadable_total") == 0
