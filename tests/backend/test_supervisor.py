"""The supervisor with small programs: what starts when, what stops how, and who is given up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.supervisor.service import Ending
from tests.backend.up_world import descendants, is_alive, until

SUPERVISE = """
import json, os, sys
from backend.supervisor.console import Console, log_to
from backend.supervisor.service import Program, ProgramService
from backend.supervisor.supervise import Supervisor
from segzero_ml.errors import SegZeroError

console = Console(sys.stderr, people=False, colour=False)
log_to(console)

def service(name, code, grace_s):
    command = [sys.executable, "-S", "-c", code]
    return ProgramService(Program(name, command, os.environ, grace_s), console.write)

try:
    Supervisor([[service(*one) for one in stage] for stage in json.loads(sys.argv[1])]).run()
except SegZeroError as error:
    print(error, flush=True)
    sys.exit(1)
"""
OBEDIENT = """
import signal, sys, time
def end(*_):
    print("bye", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("hello", flush=True)
time.sleep(600)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
print("hello", flush=True)
while True:
    time.sleep(600)
"""
WRONG = "import sys; print('the setting is wrong'); sys.exit(1)"
FORKS = """
import os, time
left = os.fork()
if left == 0:
    time.sleep(600)
print("left", left, flush=True)
os._exit(5)
"""
LONG = "print('x' * 3_000_000 + 'end', flush=True); import time; time.sleep(600)"


class Supervising:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path, *stages: list[tuple[str, str, float]]) -> None:
        self.log = folder / "log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, json.dumps(stages)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> list[str]:
        """`process: message` of each line so far."""
        lines = [line for line in self.log.read_text().splitlines(True) if line.endswith("}\n")]
        records = [json.loads(line) for line in lines]
        return [f"{record['process']}: {record['message']}" for record in records]

    def wait_for(self, line: str, times: int = 1) -> None:
        until(lambda: self.said().count(line) >= times, f"{line}, {times} times")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def supervising(folder: Path, *stages: list[tuple[str, str, float]]) -> Iterator[Supervising]:
    running = Supervising(folder, *stages)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        print(running.log.read_text()[:9999])


def test_stages_start_in_order_and_stop_the_other_way_round(tmp_path: Path) -> None:
    stages = [[(name, OBEDIENT, 60.0)] for name in ("one", "two", "three")]
    with supervising(tmp_path, *stages) as running:
        for name in ("one", "two", "three"):
            running.wait_for(f"{name}: hello")
        below = descendants(running.process.pid)
        assert len(below) == 3
        assert running.stop() == 0
        goodbyes = [line for line in running.said() if line.endswith(": bye")]
        assert goodbyes == ["three: bye", "two: bye", "one: bye"]
        assert running.said()[-1] == "up: Everything has stopped."
        assert not any(map(is_alive, below))


def test_what_ends_is_started_again_and_said_with_the_reason(tmp_path: Path) -> None:
    with supervising(tmp_path, [("one", OBEDIENT, 60.0), ("two", OBEDIENT, 60.0)]) as running:
        running.wait_for("one: hello")
        running.wait_for("two: hello")
        first, second = sorted(descendants(running.process.pid))
        os.kill(first, signal.SIGKILL)
        running.wait_for("one: hello", 2)
        assert second in descendants(running.process.pid)
        reasons = [line for line in running.said() if "SIGKILL" in line]
        assert len(reasons) == 1
        assert "it is started again in 1 s" in reasons[0]


def test_what_a_program_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    with supervising(tmp_path, [("forks", FORKS, 60.0)]) as running:
        # It holds the pipe open, which must not keep the end of its parent from being noticed.
        until(lambda: any("ended with exit code 5" in line for line in running.said()), "its end")
        left = [int(line.split()[-1]) for line in running.said() if line.startswith("forks: left")]
        assert left
        until(lambda: not is_alive(left[0]), "the one left behind ends", 10)
        assert running.stop() == 0


def test_what_refuses_to_start_ends_all_with_its_last_words(tmp_path: Path) -> None:
    with supervising(tmp_path, [("good", OBEDIENT, 60.0)], [("wrong", WRONG, 60.0)]) as running:
        assert running.process.wait(60) == 1
        assert running.said().count("wrong: the setting is wrong") == 3
        assert "good: bye" in running.said()
        last = running.log.read_text().splitlines()[-2:]
        assert last[0].startswith("wrong cannot start: it ended with exit code 1, three times")
        assert last[1] == "the setting is wrong"


def test_who_does_not_stop_within_its_grace_is_killed(tmp_path: Path) -> None:
    with supervising(tmp_path, [("deaf", DEAF, 0.5)]) as running:
        running.wait_for("deaf: hello")
        below = descendants(running.process.pid)
        assert running.stop() == 0
        assert not any(map(is_alive, below))
        assert any("deaf did not stop in" in line for line in running.said())


def test_a_second_signal_hurries(tmp_path: Path) -> None:
    with supervising(tmp_path, [("deaf", DEAF, 600.0)]) as running:
        running.wait_for("deaf: hello")
        running.process.send_signal(signal.SIGINT)
        running.wait_for("deaf: no")
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
        # Once more where it hears the last SIGTERM before the SIGKILL behind it.
        assert running.said().count("deaf: no") >= 2


def test_a_signal_ends_the_wait_for_a_restart(tmp_path: Path) -> None:
    with supervising(tmp_path, [("wrong", "raise SystemExit(7)", 600.0)]) as running:
        running.wait_for("up: wrong ended with exit code 7 after 0 s; it is started again in 4 s.")
        assert running.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a death")
@pytest.mark.parametrize("code", [OBEDIENT, DEAF], ids=["obedient", "deaf"])
def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path, code: str) -> None:
    with supervising(tmp_path, [("one", code, 60.0)]) as running:
        running.wait_for("one: hello")
        below = descendants(running.process.pid)
        assert below
        running.process.kill()
        running.process.wait()
        until(lambda: not any(map(is_alive, below)), "all have ended", 10)


def test_a_line_of_megabytes_passes_in_pieces(tmp_path: Path) -> None:
    with supervising(tmp_path, [("long", LONG, 60.0)]) as running:
        until(lambda: any(line.endswith("xend") for line in running.said()), "the long line's end")
        assert sum(line.count("x") for line in running.said() if ": xx" in line) == 3_000_000
        assert running.stop() == 0


def test_an_idle_supervisor_rests(tmp_path: Path) -> None:
    with supervising(tmp_path, [("one", OBEDIENT, 60.0)]) as running:
        running.wait_for("one: hello")
        stat = Path(f"/proc/{running.process.pid}/stat")
        before = sum(map(int, stat.read_text().split()[13:15]))
        time.sleep(3)
        ticks = sum(map(int, stat.read_text().split()[13:15])) - before
        assert ticks / os.sysconf("SC_CLK_TCK") < 0.3


def test_endings_are_told_in_words() -> None:
    assert Ending.of(0).how == "ended with exit code 0"
    assert Ending.of(-9).how == "was killed by SIGKILL"
    assert Ending.of(-77).how == "was killed by signal 77"
