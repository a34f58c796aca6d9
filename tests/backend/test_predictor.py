"""Deadlines, order, overload and stopping: the real models, slowed down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from segzero_ml.pipeline import Pipeline
from segzero_ml.tiny.scenes import Scene
from tests.backend.serving import CONFIG, Running, Serve, Watched, naming, predict_body, task


class Gate:
    """Holds the model before each batch after the first `free`, until it is opened."""

    def __init__(self, free: int = 0) -> None:
        self._free = free
        self._open = threading.Event()
        self.timed_out = False

    def __call__(self, _: Sequence[str]) -> None:
        self._free -= 1
        if self._free < 0 and not self._open.wait(60):
            self.timed_out = True

    def open(self) -> None:
        self._open.set()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def wait_for_queue(running: Running, requests: int) -> None:
    line = f"segzero_queue_requests {requests}.0"
    wait_for(lambda: line in running.get("/metrics").text)


def test_what_is_finished_at_the_deadline_is_returned_and_the_rest_is_skipped(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    gate = Gate(free=2)
    pipeline = Watched(tiny_pipeline, gate)
    tasks = [task(0, request=naming(scenes[0])) for _ in range(30)]
    with serve(lambda: pipeline, predict_deadline_s=10, batch_size=1) as running:
        running.wait_until_ready()
        results = running.predict(*tasks)
        assert not gate.timed_out  # the reply came while the model was still held
        # The first ones, in order: as many as the model was let answer, unless it was slow.
        answered = [bool(result) for result in results]
        assert answered == sorted(answered, reverse=True)
        assert 1 <= sum(answered) <= 2
        gate.open()
        # What nobody waits for any more is not worked on.
        wait_for_queue(running, 0)
        assert len(pipeline.batches) <= 3
        late = len(tasks) - sum(answered)
        assert f'outcome="late"}} {late}.0' in running.get("/metrics").text


def test_health_and_setup_answer_while_the_model_works(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    gate = Gate()
    pipeline = Watched(tiny_pipeline, gate)
    with serve(lambda: pipeline) as running, ThreadPoolExecutor() as pool:
        pending = pool.submit(running.predict, task(0, request=naming(scenes[0])))
        wait_for(lambda: bool(pipeline.batches))
        assert running.get("/health").status_code == 200
        assert running.get("/ready").status_code == 200
        assert running.post("/setup", {"schema": CONFIG}).status_code == 200
        assert not pending.done()
        assert not gate.timed_out  # all of it while the model was held
        gate.open()
        assert pending.result()[0]["result"]


def test_requests_of_a_call_are_answered_in_batches(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    gate = Gate()
    pipeline = Watched(tiny_pipeline, gate)
    tasks = [task(0, request=naming(scenes[0])) for _ in range(8)]
    with serve(lambda: pipeline, batch_size=4) as running, ThreadPoolExecutor() as pool:
        pending = pool.submit(running.predict, *tasks)
        wait_for_queue(running, 8)
        gate.open()
        assert all(pending.result())
    assert max(len(batch) for batch in pipeline.batches) == 4


def test_annotator_is_served_before_the_rest_of_a_batch(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    gate = Gate(free=1)
    pipeline = Watched(tiny_pipeline, gate)
    batch = [task(0, request=naming(scenes[0])) for _ in range(8)]
    with serve(lambda: pipeline, batch_size=1) as running, ThreadPoolExecutor() as pool:
        running.wait_until_ready()
        pending = pool.submit(running.predict, *batch)
        wait_for(lambda: len(pipeline.batches) == 2)
        wait_for_queue(running, 2)  # one with the model, one waits
        typed = pool.submit(running.predict, task(1), typed=["the one I typed"])
        wait_for_queue(running, 3)
        gate.open()
        typed.result()
        assert all(pending.result())
    assert pipeline.batches.index(["the one I typed"]) == 2


def test_a_task_that_is_opened_is_served_before_the_rest_of_a_batch(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    gate = Gate(free=1)
    pipeline = Watched(tiny_pipeline, gate)
    batch = [task(0, request=naming(scenes[0])) for _ in range(8)]
    with serve(lambda: pipeline, batch_size=1) as running, ThreadPoolExecutor() as pool:
        running.wait_until_ready()
        pending = pool.submit(running.predict, *batch)
        wait_for(lambda: len(pipeline.batches) == 2)
        wait_for_queue(running, 2)
        opened = pool.submit(running.predict, task(1, request="what I opened"))
        wait_for_queue(running, 3)
        gate.open()
        opened.result()
        assert all(pending.result())
    assert pipeline.batches.index(["what I opened"]) == 2


def test_two_calls_for_the_same_tasks_in_another_order_do_not_wait_for_each_other(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    gate = Gate()
    pipeline = Watched(tiny_pipeline, gate)

    def tasks(*numbers: int) -> list[dict[str, Any]]:
        return [task(0, request=naming(scenes[0])) | {"id": number} for number in numbers]

    with (
        serve(lambda: pipeline, batch_size=2, predict_deadline_s=20) as running,
        ThreadPoolExecutor() as pool,
    ):
        running.wait_until_ready()
        one = pool.submit(running.predict, *tasks(1, 2, 3, 4, 5, 6, 7, 8, 11, 12))
        wait_for_queue(running, 4)
        other = pool.submit(running.predict, *tasks(5, 6, 7, 8, 1, 2, 3, 4, 21, 22))
        time.sleep(1.0)  # until it has its first tasks in hand
        gate.open()
        first, second = one.result(), other.result()
    both = zip(first[:8], [*second[4:8], *second[:4]], strict=True)
    assert all(bool(a) != bool(b) for a, b in both)  # once each
    assert all(first[8:])
    assert all(second[8:])


def test_a_call_that_could_not_be_begun_in_time_is_refused_at_once(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    gate = Gate()
    pipeline = Watched(tiny_pipeline, gate)
    batch = [task(0, request=naming(scenes[0])) for _ in range(40)]
    # A second a request is believed before any was timed.
    with (
        serve(lambda: pipeline, batch_size=16, predict_deadline_s=25) as running,
        ThreadPoolExecutor() as pool,
    ):
        running.wait_until_ready()
        pending = pool.submit(running.predict, *batch)
        wait_for_queue(running, 32)
        refused = running.post("/predict", predict_body(*batch[:2]))
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 25
        typed = pool.submit(running.predict, task(1), typed=["the one I typed"])
        wait_for_queue(running, 33)  # an annotator goes before all of that
        gate.open()
        assert typed.result()
        pending.result()
        assert running.post("/predict", predict_body(*batch[:2])).status_code == 200


def test_too_many_calls_are_told_when_to_come_back(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    go = threading.Event()
    pipeline = Watched(tiny_pipeline, lambda _: go.wait(60))
    call = predict_body(task(0, request=naming(scenes[0])))
    with serve(lambda: pipeline, max_calls=2) as running, ThreadPoolExecutor() as pool:
        pending = [pool.submit(running.post, "/predict", call) for _ in range(2)]
        wait_for_queue(running, 2)
        refused = running.post("/predict", call)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        go.set()
        assert [one.result().status_code for one in pending] == [200, 200]
        assert running.post("/predict", call).status_code == 200


def test_signal_to_stop_makes_it_not_ready_and_ends_running_calls_in_time(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    gate = Gate(free=3)
    pipeline = Watched(tiny_pipeline, gate)
    tasks = [task(0, request=naming(scenes[0])) for _ in range(40)]
    with (
        serve(lambda: pipeline, batch_size=1, drain_s=5) as running,
        ThreadPoolExecutor() as pool,
        httpx.Client(base_url=running.client.base_url, timeout=60) as kept,
    ):
        running.wait_until_ready()
        pending = pool.submit(running.predict, *tasks)
        wait_for(lambda: len(pipeline.batches) == 4)
        assert kept.get("/ready").status_code == 200
        running.app.state.services.predictor.begin_drain()
        draining = kept.get("/ready")
        assert (draining.status_code, draining.json()["status"]) == (503, "draining")
        assert kept.post("/predict", json=predict_body(task(0))).status_code == 503
        running.server.handle_exit(15, None)
        results = pending.result()
        assert not gate.timed_out  # the call ended while the model was still held
        assert results[0]
        assert results[-1] == []
        gate.open()


def test_backend_that_is_stopped_while_the_model_loads_stops(
    serve: Serve, tiny_pipeline: Pipeline
) -> None:
    go = threading.Event()
    loaded = threading.Event()

    def load() -> Pipeline:
        go.wait(60)
        loaded.set()
        return tiny_pipeline

    with serve(load, drain_s=0.1) as running:
        running.get("/health")
    assert not loaded.is_set()
    go.set()


def test_error_nobody_thought_of_is_counted_and_shows_nothing_of_the_inside(serve: Serve) -> None:
    with serve() as running:

        @running.app.get("/boom")
        def boom() -> None:
            raise ZeroDivisionError("the inside")

        # uvicorn hangs up after such an error: the next call needs a connection of its own.
        reply = running.get("/boom", headers={"Connection": "close"})
        counted = running.get("/metrics").text
    assert reply.status_code == 500
    assert reply.json() == {"detail": "Internal error; the backend's log has it."}
    assert 'segzero_http_requests_total{path="other",status="500"} 1.0' in counted


@pytest.mark.parametrize("number", [0, 1, 200])
def test_results_are_as_many_as_the_tasks(running: Running, number: int) -> None:
    assert running.predict(*[{"id": n, "data": {}} for n in range(number)]) == [[]] * number
