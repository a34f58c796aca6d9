"""From the spool to the queue, whatever stands in between: a real spool, a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from backend.intake.changes import Saved
from backend.intake.drainer import Drainer, DrainOptions
from backend.intake.events import read_event
from backend.intake.ingest_job import ingest
from backend.intake.recheck import APART_S, Recheck
from backend.intake.studio import Studio
from backend.jobs import ALLOWED
from backend.settings import Settings, load_settings
from segzero_ml.errors import ConfigError
from tests.backend.intake_world import deleted, encode, project, saved, until
from training_hooks.queues import QueueName, Queues
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.spool import Spool

QUICK = DrainOptions(first_pause_s=0.02, longest_pause_s=0.1, disk_wait_s=1.0)
WITH_STUDIO = {"label_studio_url": "http://studio.test", "label_studio_token": "a" * 40}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("redis"), fsync="always") as server:
        yield server


@pytest.fixture
def redis(server: EmbeddedServer) -> Iterator[Redis]:
    with connect(server.url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool") as spool:
        yield spool


@pytest.fixture
def drain(spool: Spool, server: EmbeddedServer) -> Iterator[Callable[..., Drainer]]:
    """Starts a drainer that is stopped with the test."""
    started: list[Drainer] = []

    def start(connection: Callable[[], Redis] | None = None, **options: Any) -> Drainer:
        drainer = Drainer(
            spool,
            connection or (lambda: connect(server.url)),
            options.pop("recheck", Recheck(load_settings())),
            options=options.pop("waits", QUICK),
            **options,
        )
        started.append(drainer)
        drainer.start()
        return drainer

    yield start
    for drainer in started:
        drainer.stop()


def waiting(redis: Redis) -> int:
    return Queues(redis, ALLOWED).depth(QueueName.INGEST).waiting


def jobs(redis: Redis) -> list[tuple[str, dict[str, Any]]]:
    """Function and arguments of the jobs that wait."""
    found = []
    for job in Queues(redis, ALLOWED).open(QueueName.INGEST).get_jobs():
        found.append((str(job.func_name), dict(job.kwargs)))
    return found


def test_records_become_jobs_and_leave_the_spool(
    spool: Spool, redis: Redis, drain: Callable[..., Drainer]
) -> None:
    for number in range(1, 121):
        spool.append(encode(saved(number)))
    drain()
    until(lambda: spool.stats().depth == 0, "the spool is empty")
    found = jobs(redis)
    assert {name for name, _ in found} == {"ingest"}
    assert sum(len(kwargs["changes"]) for _, kwargs in found) == 120
    assert len(found) == 3


def test_records_that_cannot_be_read_do_not_stop_the_rest(
    spool: Spool, redis: Redis, drain: Callable[..., Drainer], caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[int] = []
    for payload in (b"", b"\xff\x00", b"[" * 100_000, b'{"action": "TASKS_DELETED", "tasks": 5.5}'):
        spool.append(payload)
    spool.append(encode({"action": "MADE_UP"}))
    spool.append(encode(saved(1, last_action="hunter2")))
    spool.append(b'{"action": "ANNOTATION_CREATED", "annotation": "hunter2"}')
    drain(on_unreadable=lambda: counted.append(1))
    until(lambda: spool.stats().depth == 0, "the spool is empty")
    [(_, kwargs)] = jobs(redis)
    assert len(kwargs["changes"]) == 1
    assert len(counted) == 5
    assert "hunter2" not in caplog.text


def test_redis_that_comes_late_gets_everything_in_the_end(
    spool: Spool, server: EmbeddedServer, redis: Redis, drain: Callable[..., Drainer]
) -> None:
    attempts: list[int] = []

    def late() -> Redis:
        attempts.append(1)
        if len(attempts) < 4:
            raise ConfigError("There is no Redis: none was ever started.")
        if len(attempts) < 8:
            return connect("redis://127.0.0.1:1", timeout_s=0.2, retries=0)
        return connect(server.url)

    spool.append(encode(saved(1)))
    drain(late)
    until(lambda: spool.stats().depth == 0, "the spool is empty")
    assert len(attempts) == 8
    assert waiting(redis) == 1


def test_record_that_was_not_acknowledged_makes_no_second_job(
    tmp_path: Path, redis: Redis, server: EmbeddedServer
) -> None:
    """As after a SIGKILL between Redis's answer and the spool's cursor."""
    for _ in range(2):
        with Spool(tmp_path / "spool") as spool:
            if not spool.stats().last_seq:
                spool.append(encode(saved(1)))
            drainer = Drainer(spool, lambda: connect(server.url), Recheck(load_settings()))
            # Everything but the acknowledgement.
            drainer._hand_over(spool.read(), Queues(redis, ALLOWED))
    assert waiting(redis) == 1


def test_what_is_too_much_for_the_queue_stays_on_the_disk(
    spool: Spool, redis: Redis, drain: Callable[..., Drainer]
) -> None:
    queues = Queues(redis, ALLOWED)
    for number in range(3):
        queues.enqueue(QueueName.INGEST, "ingest", f"job-{number}", {"changes": []})
    spool.append(encode(saved(1)))
    drain(waits=DrainOptions(first_pause_s=0.02, most_waiting=3))
    with pytest.raises(AssertionError):
        until(lambda: spool.stats().depth == 0, "the spool is empty", patience_s=1.5)
    assert waiting(redis) == 3
    queues.cancel("job-0")
    until(lambda: spool.stats().depth == 0, "the spool is empty")


def test_drainer_that_is_stopped_leaves_the_rest_for_later(
    spool: Spool, redis: Redis, drain: Callable[..., Drainer]
) -> None:
    drain().stop()
    spool.append(encode(saved(1)))
    assert spool.stats().depth == 1
    drain()
    until(lambda: waiting(redis) == 1, "the job waits")


class Clock:
    """Monotonic seconds that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def studio() -> Settings:
    return load_settings(**WITH_STUDIO)


def reconciles(redis: Redis) -> list[int]:
    return [kwargs["project"] for name, kwargs in jobs(redis) if name == "reconcile"]


def test_events_that_tell_too_little_have_the_project_reconciled_once(
    spool: Spool, redis: Redis, drain: Callable[..., Drainer], studio: Settings
) -> None:
    for action in ("TASKS_CREATED", "TASKS_CREATED", "PROJECT_UPDATED"):
        spool.append(encode({"action": action, "project": project()}))
    spool.append(encode({"action": "TASKS_CREATED", "project": project(9)}))
    drain(recheck=Recheck(studio, settle_s=0.1))
    until(lambda: len(reconciles(redis)) == 2, "both are asked for")
    assert sorted(reconciles(redis)) == [7, 9]
    assert spool.stats().depth == 0


def test_reconciles_that_events_ask_for_keep_apart(redis: Redis, studio: Settings) -> None:
    clock, queues = Clock(), Queues(redis, ALLOWED)
    recheck = Recheck(studio, clock=clock)
    recheck.note([7])
    seen = [recheck.is_due]
    clock.now += 3
    seen.append(recheck.is_due)
    recheck.enqueue_due(queues)
    assert [*seen, recheck.is_due] == [False, True, False]
    redis.flushdb()  # it has run
    recheck.note([7, 7])
    clock.now += 3
    assert not recheck.is_due
    clock.now += APART_S
    recheck.enqueue_due(queues)
    assert reconciles(redis) == [7]


def test_reconcile_that_still_waits_is_not_asked_for_twice(redis: Redis, studio: Settings) -> None:
    clock, queues = Clock(), Queues(redis, ALLOWED)
    recheck = Recheck(studio, clock=clock)
    for _ in range(3):
        recheck.note([7])
        clock.now += 2 * APART_S
        recheck.enqueue_due(queues)
    assert reconciles(redis) == [7]


def test_without_a_project_all_that_are_known_are_reconciled(
    redis: Redis, studio: Settings
) -> None:
    for number in (7, 8):
        event = saved(number, project=number)
        [change] = read_event(encode({**event, "project": project(number)})).changes or ()
        assert isinstance(change, Saved)
        ingest(change, load_settings(), redis, Studio(load_settings()), lambda *_: None)
    clock = Clock()
    recheck = Recheck(studio, clock=clock)
    recheck.note([None])
    clock.now += 3
    recheck.enqueue_due(Queues(redis, ALLOWED))
    assert sorted(reconciles(redis)) == [7, 8]


def test_without_a_label_studio_no_reconcile_is_asked_for(redis: Redis) -> None:
    """It could only fail, and become a dead letter."""
    clock = Clock()
    recheck = Recheck(load_settings(), clock=clock)
    recheck.note([7, None])
    clock.now += 100
    assert not recheck.is_due


def test_deletions_of_one_body_travel_together(
    spool: Spool, redis: Redis, drain: Callable[..., Drainer]
) -> None:
    spool.append(encode(deleted(*range(1, 200))))
    drain()
    until(lambda: waiting(redis) == 1, "the job waits")
