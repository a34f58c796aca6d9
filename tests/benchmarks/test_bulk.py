"""Many tasks at once: `make bench ARGS="tests/benchmarks/test_bulk.py"`.

The backend runs in a process of its own, as in production; what is compared is measured in one
run. The number of cores and what limits are printed with it.
"""

from __future__ import annotations

import base64
import io
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from backend.templates import labelling_config
from segzero_ml.datasets import Sample
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.pipeline import Pipeline
from segzero_ml.segmenter import Segmenter
from training_hooks import processes

TASKS: Final = 64
BATCHES: Final = (4, 16)
HEALTH_P99_S: Final = 0.1
PATIENCE_S: Final = 300.0


def address(sample: Sample) -> str:
    """The picture inside the task: nothing is fetched."""
    file = io.BytesIO()
    sample.image().save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def body(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "tasks": tasks,
        "project": "1.0",
        "label_config": labelling_config(),
        "params": {"context": None, "for_worker": True},
    }


@pytest.fixture(scope="module")
def tasks() -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "data": {
                "image": address(sample),
                "request": sample.request,
            },
        }
        for number, sample in enumerate(scene_samples(TASKS, seed=9), 1)
    ]


class Backend:
    """`segzero serve` in a process of its own."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        env = {
            **os.environ,
            "SEGZERO_PORT": str(port),
            "SEGZERO_DATA_DIR": str(folder),
            "SEGZERO_BATCH_SIZE": str(batch_size),
        }
        # It must not outlive a benchmark that is killed.
        self.process = processes.start(
            [sys.executable, "-m", "backend.cli", "serve"], env=env, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            assert self.process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready").status_code == 200
        except httpx.TransportError:
            return False

    def predict(self, tasks: list[dict[str, Any]]) -> float:
        """Seconds until all are answered."""
        started = time.perf_counter()
        waiting = tasks
        while waiting:
            reply = httpx.post(f"{self.url}/predict", json=body(waiting), timeout=PATIENCE_S)
            results = reply.raise_for_status().json()["results"]
            waiting = [task for task, one in zip(waiting, results, strict=True) if not one]
        return time.perf_counter() - started

    def stop(self) -> None:
        processes.stop(self.process, 60)


@pytest.fixture(params=BATCHES)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, Backend]]:
    running = Backend(tmp_path / "data", request.param)
    try:
        [sample] = scene_samples(1, seed=3)
        first = {"image": address(sample), "request": sample.request}
        running.predict([{"id": 0, "data": first}])
        yield request.param, running
    finally:
        running.stop()


def test_a_call_with_64_tasks_against_64_calls(
    backend: tuple[int, Backend], tasks: list[dict[str, Any]]
) -> None:
    size, running = backend
    together = running.predict(tasks)
    alone = sum(running.predict([task]) for task in tasks)
    print(
        f"\n{TASKS} tasks, batches of {size}, {os.cpu_count()} cores: {together:.1f} s in one call,"
        f" {alone:.1f} s one by one, {alone / together:.2f} times as fast"
    )


def test_health_answers_while_64_tasks_are_predicted(
    backend: tuple[int, Backend], tasks: list[dict[str, Any]]
) -> None:
    size, running = backend
    took: list[float] = []
    over = threading.Event()

    def look() -> None:
        with httpx.Client(base_url=running.url, timeout=30) as client:
            client.get("/health")
            while not over.is_set():
                started = time.perf_counter()
                assert client.get("/health").status_code == 200
                took.append(time.perf_counter() - started)
                time.sleep(0.01)

    looker = threading.Thread(target=look)
    looker.start()
    seconds = running.predict(tasks)
    over.set()
    looker.join()
    p99 = statistics.quantiles(took, n=100)[98]
    print(
        f"\n/health during {seconds:.1f} s of {TASKS} tasks in batches of {size}: median "
        f"{1000 * statistics.median(took):.1f} ms, p99 {1000 * p99:.1f} ms, "
        f"most {1000 * max(took):.1f} ms of {len(took)} calls"
    )
    assert p99 < HEALTH_P99_S


def test_where_the_time_of_a_batch_goes(tasks: list[dict[str, Any]]) -> None:
    """What batching can speed up at most: the reasoner's share; masks are cut one by one."""
    samples = list(scene_samples(TASKS, seed=9))
    images, requests = [one.image() for one in samples], [one.request for one in samples]
    loaded = Pipeline.load("tiny")
    loaded.predict(images[:2], requests[:2])
    for size in (1, *BATCHES):
        fresh = Pipeline(loaded.reasoner, Segmenter(loaded.segmenter.model, "b"), loaded.preset)
        started = time.perf_counter()
        for at in range(0, TASKS, size):
            fresh.reasoner.answer(images[at : at + size], requests[at : at + size])
        reasoning = time.perf_counter() - started
        started = time.perf_counter()
        fresh.predict(images, requests, batch_size=size)
        whole = time.perf_counter() - started
        print(
            f"\nbatches of {size}: {whole:.1f} s, of which the reasoner {reasoning:.1f} s, "
            f"masks and the rest {whole - reasoning:.1f} s"
        )
