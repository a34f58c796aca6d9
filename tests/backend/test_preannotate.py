"""Jobs that give whole projects their predictions: once each, and told why not where not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from rq.job import Job
from typer.testing import CliRunner

from backend.cli import app
from backend.label_studio import LabelStudioApiError
from backend.label_studio_listing import Listing
from backend.preannotate import job
from backend.preannotate.asking import (
    Backend,
    BackendAwayError,
    BackendRefusedError,
    backend_url,
    patiently,
)
from backend.preannotate.book import Book
from backend.preannotate.plan import TASKS_PER_JOB, Plan, Selection, enqueue, make_plan
from backend.preannotate.pushing import push
from backend.preannotate.refresh import enqueue_refresh
from backend.preannotate.watch import Standing, watch
from backend.reconcile.projects import open_label_studio
from backend.settings import Settings, load_settings
from segzero_ml.errors import ConfigError, LabelStudioError
from tests.backend.bulk_studio import PROJECT, BulkStudio, served
from tests.backend.studio import TOKEN
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.running_job import RunningJob

VERSION = "tiny@1f3a5b7c"
NAME = "label-studio"


class FakeBackend:
    """What speaks like the backend; its answers are made up, its calls are kept."""

    def __init__(self) -> None:
        self.version = VERSION
        self.calls: list[list[int]] = []
        self.late: set[int] = set()
        self.broken: dict[int, str] = {}
        self.refuse: Callable[[int], int] = lambda tasks: 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.path == "/setup":
            return httpx.Response(200, json={"model_version": self.version})
        numbers = [task["id"] for task in body["tasks"]]
        status = self.refuse(len(numbers))
        if status:
            return httpx.Response(status, json={"detail": "No."})
        self.calls.append(numbers)
        late, self.late = self.late, set()
        made = {"result": [{"id": "a"}], "score": 0.5, "model_version": self.version}
        without = late | self.broken.keys()
        reply = {
            "results": [[] if number in without else made for number in numbers],
            "model_version": self.version,
            "problems": [self.broken.get(number) for number in numbers],
        }
        return httpx.Response(200, json=reply)


@dataclass
class World:
    studio: BulkStudio
    backend: FakeBackend
    settings: Settings
    redis: Redis

    def book(self) -> Book:
        return Book(self.redis, NAME, PROJECT, VERSION)

    def run(self, tasks: Sequence[int]) -> dict[str, Any]:
        with (
            open_label_studio(self.settings) as client,
            Backend(self.settings, httpx.MockTransport(self.backend)) as backend,
        ):
            work = job.Work(client, backend, self.book(), PROJECT, VERSION, patience_s=0.0)
            return work.run(tasks)

    def plan(self, *tasks: int) -> Plan:
        return Plan(PROJECT, VERSION, tasks, len(self.studio.tasks))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def world(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    data = [{"image": f"/data/upload/{n}.png", "request": f"thing {n}"} for n in range(40)]
    studio = BulkStudio(data, {})
    with served(studio) as url, connect(server.url) as redis:
        redis.flushdb()
        monkeypatch.setenv("SEGZERO_LABEL_STUDIO_URL", url)
        monkeypatch.setenv("SEGZERO_LABEL_STUDIO_TOKEN", TOKEN)
        monkeypatch.setenv("SEGZERO_REDIS_URL", server.url)
        yield World(studio, FakeBackend(), load_settings(), redis)


def test_half_a_character_in_a_task_does_not_fail_the_job(world: World) -> None:
    world.studio.tasks[2]["data"]["request"] = "a cup \ud83d"
    done = world.run([1, 2, 3])
    assert done["predicted"] == 3, done
    assert world.backend.calls == [[1, 2, 3]]


def test_a_job_predicts_its_tasks_and_leaves_those_alone_that_are_done(world: World) -> None:
    world.studio.predict(2, VERSION)
    world.studio.predict(3, "tiny@00000000")
    del world.studio.tasks[4]
    assert world.run([1, 2, 3, 4]) == {"predicted": 2, "failed": 0, "done_before": 1, "gone": 1}
    assert world.backend.calls == [[1, 3]]
    assert world.studio.versions(1) == [VERSION]
    assert world.studio.versions(2) == [VERSION]
    assert world.studio.versions(3) == ["tiny@00000000", VERSION]
    assert world.book().pending() == {}


def test_what_is_late_is_asked_for_again(world: World) -> None:
    world.backend.late = {2, 3}
    assert world.run([1, 2, 3])["predicted"] == 3
    assert world.backend.calls == [[1, 2, 3], [2, 3]]
    assert world.studio.writes == [[1], [2, 3]]


def test_a_failure_is_noted_with_its_reason_and_fails_no_other(world: World) -> None:
    world.backend.broken = {2: "The image is gone: http://host/a.png?signature=secret"}
    assert world.run([1, 2])["failed"] == 1
    [reason] = world.book().failed().values()
    assert reason.startswith("The image is gone: http://host/a.png")
    assert "secret" not in reason
    assert world.studio.versions(1) == [VERSION]
    world.backend.broken = {}
    world.run([2])
    assert world.book().failed() == {}


def test_a_call_that_is_too_large_is_made_with_fewer_tasks(world: World) -> None:
    world.backend.refuse = lambda tasks: 413 if tasks > 3 else 0
    assert world.run(range(1, 12)) == {"predicted": 11, "failed": 0, "done_before": 0, "gone": 0}
    assert sorted(number for call in world.backend.calls for number in call) == [*range(1, 12)]


def test_a_task_that_is_too_large_by_itself_fails_alone(world: World) -> None:
    world.backend.refuse = lambda tasks: 413
    assert world.run([1, 2])["failed"] == 2
    assert "413" in world.book().failed()[1]


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_a_backend_that_refuses_is_not_waited_for(world: World, status: int) -> None:
    world.backend.refuse = lambda tasks: status
    with pytest.raises(BackendRefusedError, match=str(status)):
        world.run([1, 2])


def test_a_job_that_was_refused_is_not_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rq_job = Job.create("backend.preannotate.job.run", connection=world.redis)
    rq_job.retries_left = 2
    transport = httpx.MockTransport(world.backend)
    monkeypatch.setattr(job, "Backend", lambda settings: Backend(settings, transport))
    monkeypatch.setattr(RunningJob, "current", lambda: RunningJob(rq_job))
    world.backend.refuse = lambda tasks: 400
    with pytest.raises(BackendRefusedError):
        job.run(PROJECT, [1], VERSION)
    assert not rq_job.retries_left


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_backend_that_is_busy_may_answer_later(world: World, status: int) -> None:
    world.backend.refuse = lambda tasks: status
    with pytest.raises(BackendAwayError, match=str(status)):
        world.run([1, 2])


def test_tasks_too_heavy_for_one_page_are_listed_in_smaller_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Listing.task_page

    def small(listing: Listing, *given: Any, **more: Any) -> Any:
        return ask(listing, *given, **{**more, "most_bytes": 2000})

    monkeypatch.setattr(Listing, "task_page", small)
    with open_label_studio(world.settings) as client:
        plan = make_plan(client, PROJECT, VERSION, Selection())
        found = client.listing.tasks_of(PROJECT, plan.tasks, most_bytes=2000)
    assert (plan.tasks, plan.total) == (tuple(range(1, 41)), 40)
    assert [task["id"] for task in found] == [*range(1, 41)]


def test_another_version_than_was_asked_for_is_not_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "VERSION_PATIENCE_S", 0.0)
    world.backend.version = "tiny@1f3a5b7c+v9-00000000"
    assert world.run([1])["failed"] == 1
    assert world.studio.writes == []
    assert "v9" in world.book().failed()[1]


def test_two_that_write_the_same_tasks_at_once_store_each_once(world: World) -> None:
    predictions = {number: {"result": [], "score": 0.5} for number in range(1, 31)}

    def write() -> None:
        with open_label_studio(world.settings) as client:
            push(client, world.book(), PROJECT, VERSION, predictions, sleep=lambda _: None)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [world.studio.versions(number) for number in range(1, 31)] == [[VERSION]] * 30


def test_a_task_deleted_while_it_is_written_keeps_out_no_other(world: World) -> None:
    def delete(method: str, path: str) -> None:
        if method == "POST":
            world.studio.tasks.pop(2, None)

    world.studio.before = delete
    with open_label_studio(world.settings) as client:
        made: dict[int, dict[str, Any]] = {
            number: {"result": [], "score": None} for number in (1, 2, 3)
        }
        problems = push(client, world.book(), PROJECT, VERSION, made)
    assert list(problems) == [2]
    assert world.studio.versions(1) == world.studio.versions(3) == [VERSION]


def test_tasks_stay_reserved_while_they_are_written_one_by_one(world: World) -> None:
    keys = [f"segzero:writing:{NAME}:{VERSION}:{number}" for number in (1, 2, 3)]
    left: list[int] = []

    def pass_time(method: str, path: str) -> None:
        if method == "POST":
            world.studio.tasks.pop(2, None)
            left.append(min(int(str(world.redis.ttl(key))) for key in keys))
            for key in keys:
                world.redis.expire(key, 20)  # as if this call had taken most of the time

    world.studio.before = pass_time
    made: dict[int, dict[str, Any]] = {
        number: {"result": [], "score": None} for number in (1, 2, 3)
    }
    with open_label_studio(world.settings) as client:
        push(client, world.book(), PROJECT, VERSION, made)
    assert len(left) == 4
    assert min(left) > 60


def test_tasks_that_somebody_else_has_reserved_meanwhile_are_not_written(world: World) -> None:
    def lose(method: str, path: str) -> None:
        if method == "GET":
            world.redis.set(f"segzero:writing:{NAME}:{VERSION}:1", "somebody else")

    world.studio.before = lose
    made: dict[int, dict[str, Any]] = {1: {"result": [], "score": None}}
    with (
        open_label_studio(world.settings) as client,
        pytest.raises(LabelStudioError, match="somebody else"),
    ):
        push(client, world.book(), PROJECT, VERSION, made)
    assert world.studio.writes == []


def test_a_task_stays_reserved_while_its_write_may_still_arrive(world: World) -> None:
    def lose(method: str, path: str) -> tuple[int, Any] | None:
        return (504, {"detail": "Gateway timeout"}) if method == "POST" else None

    def be_away(method: str, path: str) -> tuple[int, Any]:
        return 503, {"detail": "Restarting"}

    book = world.book()
    made: dict[int, dict[str, Any]] = {1: {"result": [], "score": None}}
    with open_label_studio(world.settings) as client:
        for before, free in ((be_away, [1]), (lose, [])):
            world.studio.before = before
            with pytest.raises(LabelStudioApiError):
                push(client, book, PROJECT, VERSION, made)
            with book.writing([1]) as reserved:
                assert reserved.tasks == free


def test_tasks_become_jobs_once_however_often_they_are_asked_for(world: World) -> None:
    plan = world.plan(*range(1, 41))
    jobs = -(-40 // TASKS_PER_JOB)
    assert enqueue(plan, world.redis, NAME) == jobs
    assert enqueue(plan, world.redis, NAME) == 0
    assert enqueue(world.plan(*range(3, 20)), world.redis, NAME) == 0
    assert len(world.book().pending()) == 40


def test_tasks_of_a_job_that_was_lost_get_another(world: World) -> None:
    plan = world.plan(1, 2, 3)
    enqueue(plan, world.redis, NAME)
    for key in world.redis.scan_iter("rq:*"):
        world.redis.delete(key)
    assert enqueue(plan, world.redis, NAME) == 1


def test_one_who_looks_on_is_told_of_tasks_whose_job_was_lost(world: World) -> None:
    plan = world.plan(1, 2, 3)
    enqueue(plan, world.redis, NAME)
    for key in world.redis.scan_iter("rq:*"):
        world.redis.delete(key)
    seen: list[Standing] = []
    world.book().settle([1], {2: "no picture"})
    standing = watch(plan, world.redis, NAME, seen.append)
    assert standing.failed == {2: "no picture", 3: "Its job was lost."}
    assert (seen[0].waiting, standing.waiting, standing.done) == (1, 0, 1)


def test_refresh_takes_only_tasks_that_another_version_predicted(world: World) -> None:
    world.studio.predict(1, "tiny@00000000")
    world.studio.predict(2, VERSION)
    assert enqueue_refresh(world.settings, PROJECT, VERSION, world.redis) == 1
    assert list(world.book().pending()) == [1]


@pytest.mark.parametrize(
    ("filters", "more", "expected"),
    [
        ([], {}, [1, 3]),
        (["request=*1"], {}, [1]),
        (["request=*1", "image=nothing"], {}, []),
        (["other=*"], {}, []),
        ([], {"stale": True}, [3]),
        ([], {"unannotated": True}, [1]),
    ],
)
def test_a_selection_takes(filters: list[str], more: dict[str, Any], expected: list[int]) -> None:
    old, new = {"model_version": "old"}, {"model_version": VERSION}
    tasks: list[dict[str, Any]] = [
        {"id": 1, "data": {"request": "thing 1", "image": "a"}},
        {"id": 2, "data": {"request": "thing 1", "image": "a"}, "predictions": [old, new]},
        {"id": 3, "data": {"request": "thing 3"}, "predictions": [old], "annotations": [{}]},
    ]
    selection = Selection.parse(filters, **more)
    assert [task["id"] for task in tasks if selection.takes(task, VERSION)] == expected


def test_a_filter_of_another_form_is_refused() -> None:
    with pytest.raises(ConfigError, match="FIELD=PATTERN"):
        Selection.parse(["red"])


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:9090"),
        ({"host": "0.0.0.0", "port": 91}, "http://127.0.0.1:91"),  # noqa: S104
        ({"host": "::", "port": 91}, "http://[::1]:91"),
        ({"host": "backend.local"}, "http://backend.local:9090"),
        ({"backend_url": "http://elsewhere:9/"}, "http://elsewhere:9"),
    ],
)
def test_the_backend_is_asked_where_it_listens(given: dict[str, Any], url: str) -> None:
    assert backend_url(load_settings(**given)) == url


def test_a_backend_on_any_free_port_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match="any free port"):
        backend_url(load_settings(port=0))


def test_a_backend_that_is_away_is_asked_again_until_patience_ends() -> None:
    now = [0.0]
    tries: list[float] = []

    def ask() -> str:
        tries.append(now[0])
        if now[0] < 20:
            raise BackendAwayError("away")
        return "there"

    def sleep(seconds: float) -> None:
        now[0] += seconds

    assert patiently(ask, 60, sleep=sleep, clock=lambda: now[0]) == "there"
    assert tries == [0, 2, 6, 14, 30]
    now[0] = 0.0
    with pytest.raises(BackendAwayError):
        patiently(ask, 10, sleep=sleep, clock=lambda: now[0])


def test_without_a_backend_the_command_says_what_to_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.commands.preannotate._PATIENCE_S", 0.0)
    monkeypatch.setenv("SEGZERO_BACKEND_URL", "http://127.0.0.1:9")
    result = CliRunner().invoke(app, ["preannotate", "--project", "7"])
    assert isinstance(result.exception, BackendAwayError)
    assert "segzero up" in result.exception.remedy
