"""What is late at the deadline is worked on behind the call, and comes by the API, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from segzero_ml.pipeline import Pipeline
from segzero_ml.tiny.scenes import Scene
from tests.backend.bulk_studio import BulkStudio, served
from tests.backend.serving import Running, Serve, Watched, naming, predict_body
from tests.backend.studio import TOKEN
from training_hooks.redis_server import EmbeddedServer

PATIENCE_S = 60.0


class World:
    """A backend whose model waits to be let go, and the Label Studio that its answers go to."""

    def __init__(self, running: Running, studio: BulkStudio, go: threading.Event) -> None:
        self.running = running
        self.studio = studio
        self.go = go
        self.batches: list[list[str]] = []

    def body(self, *numbers: int, **more: Any) -> dict[str, Any]:
        tasks = [self.studio.tasks[number] for number in numbers]
        body = predict_body(*tasks, config=self.studio.config) | {"project": "7.1"}
        body["params"] |= more
        return body

    def results(self, *numbers: int, **more: Any) -> list[Any]:
        reply = self.running.post("/predict", self.body(*numbers, **more))
        assert reply.status_code == 200, reply.text
        results: list[Any] = reply.json()["results"]
        return results

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.05)


Start = Callable[..., Any]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def start(
    serve: Serve, tiny_pipeline: Pipeline, scenes: list[Scene], redis: EmbeddedServer
) -> Start:
    files = {f"/data/upload/{number}.jpg": scene.jpeg for number, scene in enumerate(scenes)}
    data = [
        {"image": f"/data/upload/{number}.jpg", "request": naming(scene)}
        for number, scene in enumerate(scenes)
    ]

    @contextmanager
    def starting(free: int = 0, *, with_redis: bool = True, **settings: Any) -> Iterator[World]:
        go = threading.Event()
        studio = BulkStudio(data, files)
        model = Watched(tiny_pipeline, lambda _: len(model.batches) <= free or go.wait(PATIENCE_S))
        with served(studio) as url:
            given: Mapping[str, Any] = {
                "label_studio_url": url,
                "label_studio_token": TOKEN,
                "redis_url": redis.url if with_redis else None,
                "predict_deadline_s": 2.0,
                "batch_size": 2,
                "transport": None,
                **settings,
            }
            try:
                with serve(lambda: model, **given) as running:
                    running.wait_until_ready()
                    world = World(running, studio, go)
                    world.batches = model.batches
                    yield world
                    go.set()
            finally:
                go.set()

    return starting


def flat(batches: Sequence[Sequence[str]]) -> list[str]:
    return sorted(request for batch in batches for request in batch)


def test_what_is_late_is_written_once_while_the_call_was_answered_in_time(start: Start) -> None:
    with start() as world:
        started = time.monotonic()
        assert world.results(1, 2, 3, 4, 5, 6) == [[]] * 6
        assert time.monotonic() - started < PATIENCE_S / 2
        world.go.set()
        world.until(lambda: all(world.studio.versions(number) for number in range(1, 7)))
        time.sleep(0.5)
        version = world.running.get("/versions").json()["versions"][0]
        assert [world.studio.versions(number) for number in range(1, 7)] == [[version]] * 6
        assert len(flat(world.batches)) == 6
        assert any(
            one["result"] for task in world.studio.tasks.values() for one in task["predictions"]
        )


def test_asking_again_meanwhile_does_nothing_twice(start: Start) -> None:
    with start() as world:
        assert world.results(1, 2, 3) == [[]] * 3
        threading.Timer(2.5, world.go.set).start()
        # Nothing of it comes in a reply: Label Studio would store it beside what is written.
        assert world.results(1, 2, 3) == [[]] * 3
        world.until(lambda: all(world.studio.versions(number) for number in (1, 2, 3)))
        assert len(flat(world.batches)) == 3
        assert [len(world.studio.versions(number)) for number in (1, 2, 3)] == [1, 1, 1]


def test_a_task_that_was_given_another_request_meanwhile_is_answered_anew(start: Start) -> None:
    with start() as world:
        assert world.results(1) == [[]]
        world.studio.tasks[1]["data"] = {**world.studio.tasks[1]["data"], "request": "the ring"}
        world.go.set()
        world.until(lambda: "the ring" in flat(world.batches) or any(world.results(1)))
        assert "the ring" in flat(world.batches)


def test_a_worker_asks_again_so_nothing_goes_on_behind_its_call(start: Start) -> None:
    with start() as world:
        assert world.results(1, 2, 3, 4, 5, 6, for_worker=True) == [[]] * 6
        world.go.set()
        world.until(lambda: any(world.results(1, for_worker=True)))
        assert world.studio.writes == []


def test_no_more_is_late_than_its_estimated_time_allows(start: Start) -> None:
    with start(late_work_s=3.0) as world:  # a second a request is believed before any was timed
        assert world.results(1, 2, 3, 4, 5, 6, 7, 8) == [[]] * 8
        world.go.set()
        world.until(lambda: sum(map(bool, map(world.studio.versions, range(1, 9)))) >= 3)
        time.sleep(1.0)
        written = [number for number in range(1, 9) if world.studio.versions(number)]
        assert 3 <= len(written) <= 4, written


def test_nothing_goes_on_where_that_is_switched_off(start: Start) -> None:
    with start(late_work_s=0.0) as world:
        assert world.results(1, 2, 3) == [[]] * 3
        world.go.set()
        time.sleep(1.0)
        assert world.studio.writes == []


def test_a_label_studio_that_is_away_gets_it_later(start: Start) -> None:
    with start() as world:
        refusals = iter([(503, {"detail": "restarting"})] * 2)
        world.studio.before = lambda method, path: next(refusals, None)
        assert world.results(1) == [[]]
        world.go.set()
        world.until(lambda: world.studio.versions(1) != [])
        assert len(world.studio.versions(1)) == 1


def test_what_came_in_time_with_a_late_call_is_answered_anew_when_it_is_asked_for(
    start: Start,
) -> None:
    with start(free=1, predict_deadline_s=10.0) as world:
        first = world.results(1, 2, 3, 4, 5, 6)
        in_time = [number for number, one in enumerate(first, 1) if one]
        assert 1 <= len(in_time) <= 2
        world.go.set()
        late = [number for number, one in enumerate(first, 1) if not one]
        world.until(lambda: all(world.studio.versions(number) for number in late))
        assert all(world.results(*in_time))


def test_a_late_call_lets_go_of_its_version_when_the_rest_is_answered(start: Start) -> None:
    with start(free=1) as world:
        world.results(1, 2, 3, 4, 5, 6)
        # Meanwhile it is asked for again, together with more: neither waits for the other.
        world.results(3, 4, 5, 6, 1, 2, 7, 8)
        world.go.set()
        late = world.running.app.state.services.predictor.late
        world.until(lambda: all(world.studio.versions(number) for number in (3, 4, 5, 6, 7, 8)))
        world.until(lambda: late.estimated_s < 0.001)


def test_nothing_goes_on_without_a_redis_in_which_writing_is_noted(
    start: Start,
) -> None:
    with start(with_redis=False) as world:
        assert world.results(1, 2, 3, 4, 5, 6) == [[]] * 6
        world.go.set()
        time.sleep(2.0)
        assert len(flat(world.batches)) <= 4  # what the model had in its hands


def test_what_was_predicted_meanwhile_is_not_written_beside_it(start: Start) -> None:
    with start() as world:
        assert world.results(1, 2) == [[]] * 2
        version = world.running.get("/versions").json()["versions"][0]
        world.studio.predict(1, version)
        world.go.set()
        world.until(lambda: world.studio.versions(2) != [])
        assert world.studio.versions(1) == [version]


def test_stopping_does_not_wait_for_it(start: Start, tmp_path: Path) -> None:
    with start(drain_s=2.0) as world:
        assert world.results(1, 2, 3) == [[]] * 3
        started = time.monotonic()
        world.running.server.should_exit = True
        threading.Timer(3.0, world.go.set).start()
    assert time.monotonic() - started < PATIENCE_S
