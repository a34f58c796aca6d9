"""`segzero worker` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.jobs import ALLOWED
from tests.backend.up_world import add_a_job, until
from training_hooks.queues import QueueName, Queues
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer

NOTHING = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


def worker(folder: Path, *arguments: str, url: str | None = None) -> subprocess.Popen[str]:
    clean = {name: at for name, at in os.environ.items() if not name.startswith("SEGZERO_")}
    env = {**clean, "SEGZERO_DATA_DIR": str(folder)}
    if url is not None:
        env["SEGZERO_REDIS_URL"] = url
    command = [sys.executable, "-m", "backend.cli", "worker", *arguments]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def run(folder: Path, *arguments: str, url: str | None = None) -> tuple[int, str]:
    process = worker(folder, *arguments, url=url)
    _, log = process.communicate(timeout=120)
    return process.returncode, log


def test_an_unknown_queue_is_refused_with_the_names(tmp_path: Path) -> None:
    code, said = run(tmp_path, "digest")
    assert code == 1
    assert said.startswith("Error: There is no queue 'digest'.\nWhat to do: ")
    assert "ingest" in said


@pytest.mark.parametrize("options", [(), ("--burst",)])
def test_where_redis_never_was_that_is_said(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, said = run(tmp_path, "ingest", *options)
    assert code == 1
    assert said.startswith(f"Error: There is no Redis: none was ever started in {tmp_path}.")
    assert "segzero up" in said
    assert "SEGZERO_REDIS_URL" in said


def test_a_burst_has_nothing_to_wait_for_when_redis_is_away(tmp_path: Path) -> None:
    code, said = run(tmp_path, "ingest", "--burst", url=NOTHING)
    assert code == 1
    assert said.startswith("Error: Redis does not answer")


def test_a_worker_that_stays_waits_for_redis_and_stops_when_told(tmp_path: Path) -> None:
    process = worker(tmp_path, "ingest", url=NOTHING)
    if process.stderr is None:
        raise AssertionError("no output")
    with process.stderr:
        record = json.loads(process.stderr.readline())
        assert "Trying again" in record["message"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_burst_runs_every_job_that_waits_and_ends(tmp_path: Path, server: EmbeddedServer) -> None:
    with connect(server.url) as redis:
        redis.flushdb()
        queues = Queues(redis, ALLOWED)
        for number in range(1, 4):
            add_a_job(queues, f"gone-{number}")
        assert run(tmp_path, "ingest", "--burst", url=server.url)[0] == 0
        for number in range(1, 4):
            assert queues.find(f"gone-{number}").status == "finished"
        assert queues.depth(QueueName.INGEST).workers == 0


def test_a_worker_that_stays_takes_jobs_as_they_come_and_stops_when_told(
    tmp_path: Path, server: EmbeddedServer
) -> None:
    with connect(server.url) as redis:
        redis.flushdb()
        queues = Queues(redis, ALLOWED)
        process = worker(tmp_path, "ingest", url=server.url)
        until(lambda: queues.depth(QueueName.INGEST).workers == 1, "the worker is there")
        add_a_job(queues, "later")
        until(lambda: queues.find("later").status == "finished", "the job is done")
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0
        assert all(json.loads(line)["logger"] for line in log.splitlines())


def test_what_its_jobs_need_is_there_before_they_fork_and_torch_is_not() -> None:
    code = (
        "import importlib, sys, threading\n"
        "from backend.commands.worker import _JOBS\n"
        "from backend.jobs import ALLOWED\n"
        "for job in _JOBS['ingest']:\n"
        "    importlib.import_module(ALLOWED[job].rpartition('.')[0])\n"
        "print(sorted({'numpy', 'httpx', 'torch', 'transformers'} & set(sys.modules)))\n"
        "print(len(list(__import__('pathlib').Path('/proc/self/task').iterdir())))\n"
    )
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == ["['httpx', 'numpy']", "1"]


def test_every_job_that_may_run_belongs_to_a_queue() -> None:
    from backend.commands.worker import _JOBS

    assert {job for jobs in _JOBS.values() for job in jobs} == set(ALLOWED)
    assert set(_JOBS) <= {name.value for name in QueueName}
