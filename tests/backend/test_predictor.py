"""Deadlines, order, overload and stopping: the real models, slowed down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from segzero_ml.pipeline import Pipeline
from segzero_ml.tiny.scenes import Scene
from tests.backend.serving import CONFIG, Running, Serve, Watched, naming, predict_body, task


def sleeping(seconds: float) -> Callable[[Sequence[str]], None]:
    return lambda _: time.sleep(seconds)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_is_finished_at_the_deadline_is_returned_and_the_rest_is_skipped(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    pipeline = Watched(tiny_pipeline, sleeping(0.4))
    tasks = [task(0, request=naming(scenes[0])) for _ in range(30)]
    with serve(lambda: pipeline, predict_deadline_s=3, batch_size=1) as running:
        running.wait_until_ready()
        started = time.monotonic()
        results = running.predict(*tasks)
        seconds = time.monotonic() - started
        answered = [bool(result) for result in results]
        assert 3 <= seconds < 8
        assert answered == sorted(answered, reverse=True)  # the first ones, in order
        assert 1 <= sum(answered) < 10
        # What nobody waits for any more is not worked on.
        wait_for(lambda: "segzero_queue_requests 0.0" in running.get("/metrics").text)
        assert len(pipeline.batches) <= sum(answered) + 2
        late = len(tasks) - sum(answered)
        assert f'outcome="late"}} {late}.0' in running.get("/metrics").text


def test_health_and_setup_answer_while_the_model_works(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    go = threading.Event()
    pipeline = Watched(tiny_pipeline, lambda _: go.wait(20))
    with serve(lambda: pipeline) as running, ThreadPoolExecutor() as pool:
        pending = pool.submit(running.predict, task(0, request=naming(scenes[0])))
        wait_for(lambda: bool(pipeline.batches))
        started = time.monotonic()
        assert running.get("/health").status_code == 200
        assert running.get("/ready").status_code == 200
        assert running.post("/setup", {"schema": CONFIG}).status_code == 200
        assert time.monotonic() - started < 1
        go.set()
        assert pending.result()[0]["result"]


def test_requests_of_a_call_are_answered_in_batches(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    pipeline = Watched(tiny_pipeline, sleeping(0.1))
    tasks = [task(0, request=naming(scenes[0])) for _ in range(8)]
    with serve(lambda: pipeline, batch_size=4) as running:
        running.predict(*tasks)
    assert max(len(batch) for batch in pipeline.batches) > 1
    assert max(len(batch) for batch in pipeline.batches) <= 4


def test_annotator_is_served_before_the_rest_of_a_batch(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    pipeline = Watched(tiny_pipeline, sleeping(0.2))
    batch = [task(0, request=naming(scenes[0])) for _ in range(8)]
    with serve(lambda: pipeline, batch_size=1) as running, ThreadPoolExecutor() as pool:
        running.wait_until_ready()
        pending = pool.submit(running.predict, *batch)
        wait_for(lambda: len(pipeline.batches) >= 2)
        running.predict(task(1), typed=["the one I typed"])
        place = pipeline.batches.index(["the one I typed"])
        assert all(pending.result())
    assert place < 6


def test_too_many_calls_are_told_when_to_come_back(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    go = threading.Event()
    pipeline = Watched(tiny_pipeline, lambda _: go.wait(20))
    call = predict_body(task(0, request=naming(scenes[0])))
    with serve(lambda: pipeline, max_calls=2) as running, ThreadPoolExecutor() as pool:
        pending = [pool.submit(running.post, "/predict", call) for _ in range(2)]
        wait_for(lambda: "segzero_queue_requests 2.0" in running.get("/metrics").text)
        refused = running.post("/predict", call)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        go.set()
        assert [one.result().status_code for one in pending] == [200, 200]
        assert running.post("/predict", call).status_code == 200


def test_signal_to_stop_makes_it_not_ready_and_ends_running_calls_in_time(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    pipeline = Watched(tiny_pipeline, sleeping(0.5))
    tasks = [task(0, request=naming(scenes[0])) for _ in range(40)]
    with (
        serve(lambda: pipeline, batch_size=1, drain_s=2) as running,
        ThreadPoolExecutor() as pool,
        httpx.Client(base_url=running.client.base_url) as kept,
    ):
        running.wait_until_ready()
        pending = pool.submit(running.predict, *tasks)
        wait_for(lambda: len(pipeline.batches) >= 2)
        assert kept.get("/ready").status_code == 200
        running.app.state.services.predictor.begin_drain()
        draining = kept.get("/ready")
        assert (draining.status_code, draining.json()["status"]) == (503, "draining")
        assert kept.post("/predict", json=predict_body(task(0))).status_code == 503
        started = time.monotonic()
        running.server.handle_exit(15, None)
        results = pending.result()
        assert time.monotonic() - started < 10
        assert results[0]
        assert results[-1] == []


def test_backend_that_is_stopped_while_the_model_loads_stops(
    serve: Serve, tiny_pipeline: Pipeline
) -> None:
    def load() -> Pipeline:
        time.sleep(1)
        return tiny_pipeline

    started = time.monotonic()
    with serve(load, drain_s=0.1) as running:
        running.get("/health")
    assert time.monotonic() - started < 10


def test_error_nobody_thought_of_shows_nothing_of_the_inside(serve: Serve) -> None:
    with serve() as running:

        @running.app.get("/boom")
        def boom() -> None:
            raise ZeroDivisionError("the inside")

        reply = running.get("/boom")
    assert reply.status_code == 500
    assert reply.json() == {"detail": "Internal error; the backend's log has it."}


@pytest.mark.parametrize("number", [0, 1, 200])
def test_results_are_as_many_as_the_tasks(running: Running, number: int) -> None:
    assert running.predict(*[{"id": n, "data": {}} for n in range(number)]) == [[]] * number
