"""Starting, watching and stopping the programs of the demo."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.demo.processes import Child, ProcessError, free_port, is_free, local_env

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('deaf', flush=True); time.sleep(600)",
)
SERVER = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1")


def child(tmp_path: Path, *command: str) -> Child:
    return Child("The program", command, os.environ, tmp_path / "logs" / "log")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for_end(gone: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while is_alive(gone) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(gone)


def test_a_server_is_waited_for_and_stopped(tmp_path: Path) -> None:
    port = free_port()
    ticks: list[float] = []
    with child(tmp_path, *SERVER, str(port)) as server:
        server.wait_until(f"http://127.0.0.1:{port}/", 60, ticks.append)
        assert is_alive(server.pid)
    assert server.exit_code is not None
    assert is_free(port)


def test_a_program_that_stops_is_reported_with_its_last_words(tmp_path: Path) -> None:
    code = "print('the disk is full'); raise SystemExit(3)"
    with (
        child(tmp_path, sys.executable, "-c", code) as failing,
        pytest.raises(ProcessError, match="The program stopped with exit code 3") as caught,
    ):
        failing.wait_until(f"http://127.0.0.1:{free_port()}/", 60)
    assert "the disk is full" in caught.value.remedy


def test_a_program_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with (
        child(tmp_path, *SLEEP) as silent,
        pytest.raises(ProcessError, match="does not answer at http"),
    ):
        silent.wait_until(f"http://127.0.0.1:{free_port()}/", 0.5)
    assert not is_alive(silent.pid)


def test_a_program_that_ignores_the_request_to_end_is_ended(tmp_path: Path) -> None:
    with Child("The program", STUBBORN, os.environ, tmp_path / "log", 0.2) as stubborn:
        while "deaf" not in stubborn.output():
            time.sleep(0.05)
        stubborn.stop()
        assert stubborn.exit_code == -signal.SIGKILL


def test_stopping_twice_is_fine(tmp_path: Path) -> None:
    program = child(tmp_path, sys.executable, "-c", "pass")
    program.stop()
    program.stop()
    assert program.exit_code is not None


def test_the_tail_is_of_this_run_only(tmp_path: Path) -> None:
    child(tmp_path, sys.executable, "-c", "print('first')").wait()
    program = child(tmp_path, sys.executable, "-c", "print('second')")
    program.wait()
    assert program.tail() == "second"
    assert program.log.read_text() == "first\nsecond\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a death")
def test_children_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from backend.demo.processes import Child\n"
        f"child = Child('x', {SLEEP!r}, os.environ, Path({str(tmp_path / 'log')!r}))\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        if parent.stdout is None:
            raise AssertionError("no output")
        pid = int(parent.stdout.readline())
        # Until it has become the program it is the guard, which looks for its parent itself.
        time.sleep(1)
        assert is_alive(pid)
        parent.kill()
    wait_for_end(pid)


def test_a_taken_port_is_told_from_a_free_one() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert not is_free(taken)
        assert free_port(taken) != taken
    assert free_port(taken) == taken


def test_proxies_are_not_asked_for_this_machine() -> None:
    env = local_env({"NO_PROXY": "example.org", "A": "1", "B": "2"}, lambda name: name == "B")
    assert env["NO_PROXY"] == "example.org,127.0.0.1,localhost"
    assert env["no_proxy"] == "127.0.0.1,localhost"
    assert env["A"] == "1"
    assert "B" not in env
