"""Workers under real faults: SIGKILL of the worker, of its child, of Redis."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.executions import Execution

from tests.training_hooks.rq_jobs import ALLOWED
from tests.training_hooks.rq_world import (
    POLICIES,
    ROOT,
    WorkerProcess,
    count,
    is_alive,
    lines,
    newest_pid,
    queues,
    until,
)
from training_hooks import processes, queue_moves, queue_rescue
from training_hooks.dead_letters import DeadLetters
from training_hooks.guarded_worker import GuardedWorker
from training_hooks.queue_jobs import bind, make_job_id
from training_hooks.queue_moves import Move
from training_hooks.queues import QueueName, QueuePolicy, Queues
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.worker_options import WorkerOptions

INGEST, TRAIN, PREDICT = QueueName.INGEST, QueueName.TRAIN, QueueName.PREDICT


def finished(jobs: Queues, job_id: str) -> bool:
    return jobs.find(job_id).status == "finished"


def worker(server: EmbeddedServer, folder: Path, queue: str = "ingest") -> WorkerProcess:
    return WorkerProcess(server.url, folder / f"worker-{time.monotonic_ns()}.log", queue)


# Killed processes -------------------------------------------------------------------------


@pytest.mark.slow
def test_after_a_worker_is_killed_its_job_dies_and_is_run_again_by_exactly_one(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    jobs.enqueue(TRAIN, "slow", "slow-1", {"path": str(mark), "seconds": 3})
    with worker(redis_server, tmp_path, "train") as first:
        until(lambda: count(mark, "start") == 1, "the job starts")
        horse = newest_pid(mark)
        first.kill()
        until(lambda: not is_alive(horse), "the child dies too", 5)
    with worker(redis_server, tmp_path, "train"), worker(redis_server, tmp_path, "train"):
        until(lambda: count(mark, "start") == 2, "one of them takes over")
        until(lambda: finished(jobs, "slow-1"), "the job ends")
        time.sleep(2)
    assert [line.split()[0] for line in lines(mark)] == ["start", "start", "done"]
    assert jobs.find("slow-1").tries_left == len(POLICIES[TRAIN].retry_after_s) - 1


def test_the_programs_a_job_started_die_with_the_worker(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    queues(redis_client).enqueue(PREDICT, "with_child", "child-1", {"path": str(mark)})
    with worker(redis_server, tmp_path, "predict") as killed:
        until(lambda: count(mark, "start") == 1, "the job starts")
        child = newest_pid(mark, "child")
        assert is_alive(child)
        killed.kill()
        until(lambda: not is_alive(child), "the program dies", 5)


def test_what_a_killed_job_forked_does_not_go_on(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    queues(redis_client).enqueue(PREDICT, "forking", "fork-1", {"path": str(mark)})
    with worker(redis_server, tmp_path, "predict"):
        until(lambda: count(mark, "start") == count(mark, "child") == 1, "both are there")
        os.kill(newest_pid(mark), signal.SIGKILL)
        until(lambda: not is_alive(newest_pid(mark, "child")), "the rest dies too", 15)


def test_a_killed_child_is_noticed_at_once_and_tried_once_more(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "slow", "slow-1", {"path": str(mark), "seconds": 2})
    with worker(redis_server, tmp_path):
        until(lambda: count(mark, "start") == 1, "the job starts")
        os.kill(newest_pid(mark), signal.SIGKILL)
        until(lambda: jobs.find("slow-1").tries_left == 1, "it is noticed", 15)
        assert jobs.find("slow-1").last_failure == "Its process was killed by signal 9."
        until(lambda: finished(jobs, "slow-1"), "the second try")
    assert [line.split()[0] for line in lines(mark)] == ["start", "start", "done"]


def test_a_child_killed_without_tries_left_is_a_dead_letter_with_the_reason(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs, dead = queues(redis_client), DeadLetters(redis_client, ALLOWED, POLICIES)
    jobs.enqueue(PREDICT, "slow", "slow-1", {"path": str(mark), "seconds": 60})
    with worker(redis_server, tmp_path, "predict"):
        until(lambda: count(mark, "start") == 1, "the job starts")
        os.kill(newest_pid(mark), signal.SIGKILL)
        until(lambda: dead.count()[PREDICT] == 1, "the dead letter", 15)
    (letter,) = dead.list()
    assert letter.reason == "Its process was killed by signal 9."


def test_a_job_beyond_its_time_is_ended(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    jobs, dead = queues(redis_client), DeadLetters(redis_client, ALLOWED, POLICIES)
    arguments = {"path": str(tmp_path / "mark"), "seconds": 30}
    jobs.enqueue(PREDICT, "slow", "slow-1", arguments, timeout_s=1)
    with worker(redis_server, tmp_path, "predict"):
        until(lambda: dead.count()[PREDICT] == 1, "it is ended", 25)
    assert "exceeded maximum timeout value (1 seconds)" in dead.list()[0].reason


def test_a_worker_told_to_stop_puts_its_long_job_back_without_using_up_a_try(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "slow", "slow-1", {"path": str(mark), "seconds": 60})
    jobs.enqueue(INGEST, "remember", "later-1", {"path": str(mark)})
    with worker(redis_server, tmp_path) as stopped:
        until(lambda: count(mark, "start") == 1, "the job starts")
        stopped.process.terminate()
        assert stopped.finish() == 0
    assert not is_alive(newest_pid(mark))
    view = jobs.find("slow-1")
    assert (view.status, view.tries_left) == ("queued", 2)
    assert redis_client.lrange("rq:queue:ingest", 0, -1) == [b"slow-1", b"later-1"]
    assert jobs.depth(INGEST).workers == 0


def test_a_worker_told_to_stop_lets_a_short_job_end_and_stops_at_once_when_idle(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    with (
        WorkerProcess(redis_server.url, tmp_path / "log", options={"stop_grace_s": 60}) as stopped,
        worker(redis_server, tmp_path, "train") as idle,
    ):
        until(lambda: jobs.depth(TRAIN).workers == 1, "the idle worker is there")
        jobs.enqueue(INGEST, "slow", "slow-1", {"path": str(mark), "seconds": 0.6})
        until(lambda: count(mark, "start") == 1, "the job starts")
        stopped.process.terminate()
        idle.process.terminate()
        assert stopped.finish() == idle.finish() == 0
    assert finished(jobs, "slow-1")


@pytest.mark.slow
def test_a_second_signal_ends_the_grace_of_a_running_job(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "slow", "slow-1", {"path": str(mark), "seconds": 60})
    with WorkerProcess(redis_server.url, tmp_path / "log", options={"stop_grace_s": 60}) as stopped:
        until(lambda: count(mark, "start") == 1, "the job starts")
        stopped.process.terminate()
        stopped.process.terminate()  # the same, from the terminal
        time.sleep(2.5)
        assert stopped.process.poll() is None
        stopped.process.terminate()
        assert stopped.finish() == 0
    assert count(mark, "done") == 0
    assert jobs.find("slow-1").status == "queued"


# Redis goes away --------------------------------------------------------------------------


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that the test may kill."""
    with EmbeddedServer(tmp_path / "redis") as server:
        yield server


def kill(server: EmbeddedServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not server.is_running, "Redis dies")


@pytest.mark.slow
def test_a_job_that_runs_while_redis_is_away_finishes_once_and_the_worker_carries_on(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    with connect(own_server.url) as client, worker(own_server, tmp_path, "train") as only:
        jobs = queues(client)
        jobs.enqueue(TRAIN, "slow", "slow-1", {"path": str(mark), "seconds": 5})
        # A second worker, idle, that could take the job for abandoned.
        with worker(own_server, tmp_path, "train") as other:
            until(lambda: count(mark, "start") == 1, "the job starts")
            kill(own_server)
            # Longer than the job runs, and than it takes to count as abandoned.
            until(lambda: count(mark, "done") == 1, "the job ends all the same")
            time.sleep(1)
            own_server.start()
            until(lambda: finished(jobs, "slow-1"), "it is recorded")
            time.sleep(2)
            assert count(mark, "start") == 1
            jobs.enqueue(TRAIN, "remember", "next-1", {"path": str(mark)})
            until(lambda: finished(jobs, "next-1"), "the next job")
            assert only.process.poll() is other.process.poll() is None
    assert jobs_left(own_server) == 0


def jobs_left(server: EmbeddedServer) -> int:
    with connect(server.url) as client:
        depth = queues(client).depth(TRAIN)
    return depth.waiting + depth.running + depth.scheduled + depth.dead


@pytest.mark.slow
def test_an_idle_worker_outlives_redis_and_takes_what_was_acknowledged_before(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    with worker(own_server, tmp_path) as idle, connect(own_server.url) as client:
        jobs = queues(client)
        until(lambda: jobs.depth(INGEST).workers == 1, "the worker is there")
        kill(own_server)
        time.sleep(3)
        own_server.start()
        jobs.enqueue(INGEST, "remember", "one-1", {"path": str(mark)})
        until(lambda: finished(jobs, "one-1"), "the job")
        client.flushdb()
        until(lambda: jobs.depth(INGEST).workers == 1, "it is known again")
        assert idle.process.poll() is None


@pytest.mark.slow
def test_a_worker_started_before_redis_waits_for_it_and_says_so(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "redis")
    url = server.start()
    server.stop()
    with WorkerProcess(url, tmp_path / "log") as early:
        until(lambda: "Trying again in" in early.log.read_text(), "it says that it waits")
        assert "Traceback" not in early.log.read_text()
        with server, connect(server.url) as client:
            jobs = queues(client)
            jobs.enqueue(INGEST, "remember", "one-1", {"path": str(tmp_path / "mark")})
            until(lambda: finished(jobs, "one-1"), "the job")


@pytest.mark.slow
def test_whatever_is_killed_every_acknowledged_job_is_done(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    """The method of the Jepsen tests: unique ids, random faults, then look."""
    mark, dice = tmp_path / "mark", random.Random(7)
    tries = {**POLICIES, INGEST: QueuePolicy(60, (1,) * 20, 600)}
    acknowledged: list[str] = []
    with (
        connect(own_server.url) as client,
        worker(own_server, tmp_path) as first,
        worker(own_server, tmp_path) as second,
        ExitStack() as more,
    ):
        jobs = Queues(client, ALLOWED, tries)
        workers = [first, second]
        for number in range(60):
            job_id = make_job_id("ingest", number, revision=1)
            jobs.enqueue(INGEST, "remember", job_id, {"path": str(mark), "line": job_id})
            acknowledged.append(job_id)
            if number % 15 == 9:
                time.sleep(dice.uniform(0.2, 1))
                victim = dice.randrange(2)
                workers[victim].kill()
                workers[victim] = more.enter_context(worker(own_server, tmp_path))
            if number == 35:
                kill(own_server)
                own_server.start()
        until(lambda: all(finished(jobs, job_id) for job_id in acknowledged), "all are done")
        depth = jobs.depth(INGEST)
        assert (depth.waiting, depth.running, depth.scheduled, depth.dead) == (0, 0, 0, 0)
    done = lines(mark)
    assert set(done) == set(acknowledged)
    # A job may run again only if its worker was killed under it.
    assert len(done) <= 60 + 4


# Two of everything ------------------------------------------------------------------------


def test_a_job_taken_over_by_somebody_else_is_ended_here(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    """As after a long pause of the machine: this worker's job was given to another."""
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "slow", "slow-1", {"path": str(mark), "seconds": 60})
    with worker(redis_server, tmp_path):
        until(lambda: count(mark, "start") == 1, "the job starts")
        horse = newest_pid(mark)
        # What another worker does: it takes the entry away and runs the job itself.
        entry: Any = redis_client.zrange("rq:wip:ingest", 0, -1)[0]
        redis_client.zrem("rq:wip:ingest", entry)
        until(lambda: not is_alive(horse), "the process is ended", 15)
        time.sleep(1.5)
    # Its worker neither counts that as a failure nor runs it again.
    assert jobs.find("slow-1").tries_left == 2
    assert count(mark, "start") == 1


@pytest.mark.slow
def test_a_second_trainer_of_a_project_is_refused_and_tried_later(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    arguments = {"path": str(mark), "folder": str(tmp_path / "locks"), "seconds": 3}
    jobs.enqueue(TRAIN, "trainer", "first-1", arguments)
    jobs.enqueue(TRAIN, "trainer", "second-1", arguments)
    with worker(redis_server, tmp_path, "train"), worker(redis_server, tmp_path, "train"):
        until(lambda: count(mark, "start") == 1, "one trains")
        names = ("first-1", "second-1")
        until(lambda: any(jobs.find(name).last_failure for name in names), "the other is refused")
        (failure,) = filter(None, (jobs.find(name).last_failure for name in names))
        assert failure.startswith("TrainerBusyError: Project 7 is being trained already")
        until(lambda: all(finished(jobs, name) for name in names), "both were trained")
    # Never two at a time, and each with a newer token.
    assert [line.split()[0] for line in lines(mark)] == ["start", "promoted"] * 2
    tokens = [int(line.split()[1]) for line in lines(mark) if line.startswith("promoted")]
    assert tokens[0] < tokens[1]


# Moves that a crash left half done --------------------------------------------------------


@pytest.mark.slow
def test_a_job_that_was_popped_and_forgotten_is_put_back_and_keeps_its_tries(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    jobs.enqueue(PREDICT, "remember", "one-1", {"path": str(mark)})
    queue = jobs.open(PREDICT)
    redis_client.lmove(queue.key, queue.intermediate_queue_key)
    with worker(redis_server, tmp_path, "predict"):
        until(lambda: finished(jobs, "one-1"), "it is found")
    assert lines(mark) == ["ran"]


def test_popped_jobs_are_left_alone_for_a_while_and_never_doubled(redis_client: Redis) -> None:
    jobs = queues(redis_client)
    for name in ("popped-1", "both-1", "claimed-1"):
        jobs.enqueue(INGEST, "remember", name, {"path": "x"})
    queue = jobs.open(INGEST)
    for _ in range(3):
        redis_client.lmove(queue.key, queue.intermediate_queue_key)
    claimed = queue.fetch_job("claimed-1")
    assert claimed is not None
    assert queue_moves.claim(queue, claimed, "worker", 10)
    redis_client.rpush(queue.key, "both-1")
    redis_client.rpush(queue.intermediate_queue_key, "claimed-1", "gone-1")
    seen: dict[str, float] = {}
    assert queue_rescue.rescue_popped(queue, seen, 5) == 0
    assert set(seen) == {"popped-1", "both-1", "claimed-1", "gone-1"}
    assert queue_rescue.rescue_popped(queue, seen, 0) == 1
    assert sorted(redis_client.lrange(queue.key, 0, -1)) == [b"both-1", b"popped-1"]
    assert redis_client.llen(queue.intermediate_queue_key) == 0
    queue_rescue.rescue_popped(queue, seen, 0)
    assert seen == {}


def test_an_abandoned_job_is_moved_once_however_many_look(redis_client: Redis) -> None:
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "remember", "one-1", {"path": "x"})
    queue = jobs.open(INGEST)
    redis_client.lmove(queue.key, queue.intermediate_queue_key)
    job = queue.fetch_job("one-1")
    assert job is not None
    execution = queue_moves.claim(queue, job, "worker", 30)
    assert execution is not None
    assert queue_rescue.rescue_abandoned(queue) == 0
    # The worker falls silent...
    redis_client.zadd(queue.started_job_registry.key, {execution.composite_key: 1})
    assert queue_rescue.rescue_abandoned(queue) == 1
    assert queue_rescue.rescue_abandoned(queue) == 0
    assert jobs.find("one-1").last_failure == "The worker that ran it died."
    # ... and comes back: what it says does not count any more.
    assert not queue_moves.renew(queue, execution, 30)
    assert queue_moves.settle_success(queue, job, execution, "late", 60) is Move.LOST
    assert queue_moves.settle_failure(queue, job, execution, "late") is Move.LOST
    assert queue_moves.settle_cancelled(queue, job, execution) is Move.LOST
    assert queue_moves.put_back(queue, job, execution) is Move.LOST
    assert jobs.find("one-1").status == "scheduled"
    assert jobs.depth(INGEST).waiting == 0


def test_a_renewed_job_is_not_abandoned_even_if_its_record_had_expired(
    redis_client: Redis,
) -> None:
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "remember", "one-1", {"path": "x"})
    queue = jobs.open(INGEST)
    redis_client.lmove(queue.key, queue.intermediate_queue_key)
    job = queue.fetch_job("one-1")
    assert job is not None
    execution = queue_moves.claim(queue, job, "worker", 30)
    assert execution is not None
    redis_client.zadd(queue.started_job_registry.key, {execution.composite_key: 1})
    redis_client.delete(execution.key)
    assert queue_moves.renew(queue, execution, 30)
    assert queue_rescue.rescue_abandoned(queue) == 0
    assert Execution.fetch(execution.id, job.id, redis_client).worker_name == "worker"


def test_nothing_counts_as_abandoned_right_after_redis_was_away(
    redis_server: EmbeddedServer, redis_client: Redis
) -> None:
    """Whoever runs a job needs a moment to say so again."""
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "remember", "one-1", {"path": "x"})
    queue = jobs.open(INGEST)
    redis_client.lmove(queue.key, queue.intermediate_queue_key)
    job = queue.fetch_job("one-1")
    assert job is not None
    assert queue_moves.claim(queue, job, "silent", -5) is not None
    options = WorkerOptions(heartbeat_s=1, abandon_after_s=3)
    until(lambda: redis_client.info("server")["uptime_in_seconds"] > 3, "Redis is not new", 10)

    def tidied(quiet_s: float, options: WorkerOptions = options) -> int:
        with connect(redis_server.url) as client:
            quiet_until = time.monotonic() + quiet_s
            tidy = GuardedWorker("ingest", client, bind(ALLOWED), "tidy", options, quiet_until)
            tidy.run_maintenance_tasks()
        return jobs.depth(INGEST).running

    # The worker has just lost its connection; or Redis itself has just been started.
    assert tidied(60) == 1
    assert tidied(0, WorkerOptions(abandon_after_s=10_000_000)) == 1
    assert tidied(0) == 0


def test_a_due_job_is_promoted_once(redis_client: Redis) -> None:
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "remember", "one-1", {"path": "x"})
    queue = jobs.open(INGEST)
    redis_client.lmove(queue.key, queue.intermediate_queue_key)
    job = queue.fetch_job("one-1")
    assert job is not None
    execution = queue_moves.claim(queue, job, "worker", 30)
    assert execution is not None
    assert queue_moves.settle_failure(queue, job, execution, "why\nwhere") is Move.RETRIED
    assert queue_rescue.promote_due(queue) == 0  # not due yet
    redis_client.zadd(queue.scheduled_job_registry.key, {"one-1": 1})
    assert queue_rescue.promote_due(queue) == 1
    assert queue_rescue.promote_due(queue) == 0
    assert redis_client.lrange(queue.key, 0, -1) == [b"one-1"]
    assert jobs.find("one-1").last_failure == "why"


# Children ---------------------------------------------------------------------------------

PARENT = """
import sys, time
from training_hooks import processes
child = processes.start([sys.executable, "-S", "-c", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(60)
"""
WATCHED = """
import os, sys, time
from training_hooks import processes
if os.fork() == 0:
    processes.watch_parent(os.getppid())
    print(os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
os.write(1, b"%d\\n" % os.getpid())
time.sleep(60)
"""


def start_parent(code: str, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.parametrize("code", [PARENT, WATCHED], ids=["by the kernel", "by watching"])
def test_a_child_dies_when_its_parent_is_killed(code: str) -> None:
    parent, child = start_parent(code, "import time; time.sleep(60)")
    try:
        until(lambda: is_alive(child), "the child is there")
    finally:
        parent.kill()
        parent.wait()
    if parent.stdout is not None:
        parent.stdout.close()
    until(lambda: not is_alive(child), "the child dies", 5)


def test_stopping_ends_the_whole_group_also_what_ignores_it() -> None:
    child = processes.start([sys.executable, "-S", "-c", STUBBORN], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        pids = [int(child.stdout.readline()) for _ in range(2)]
        assert child.pid in pids
        assert processes.stop(child, grace_s=0.3) == -signal.SIGKILL
    until(lambda: not any(map(is_alive, pids)), "all are gone", 5)


def test_a_program_that_is_not_there_is_told_from_one_that_failed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert processes.start(["/no/such/program"]).wait(30) == 127
    assert "No such file" in capfd.readouterr().err
    assert processes.start([sys.executable, "-S", "-c", "raise SystemExit(3)"]).wait(30) == 3
    with pytest.raises(ValueError, match="empty"):
        processes.start([])


def test_a_child_can_be_handed_open_files_and_an_environment(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as file:
        code = f"import os; os.write({file.fileno()}, os.environ['SAID'].encode())"
        child = processes.start(
            [sys.executable, "-S", "-c", code], pass_fds=[file.fileno()], env={"SAID": "hello"}
        )
        assert child.wait(30) == 0
    assert (tmp_path / "out").read_text() == "hello"


TIDY = """
import os, signal, sys, time
def tidy(*_):
    open(sys.argv[1], "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, tidy)
print(os.getpid(), flush=True)
time.sleep(60)
"""
TIDY_PARENT = """
import signal, sys, time
from training_hooks import processes
processes.start([sys.executable, "-S", "-c", *sys.argv[1:]], number=signal.SIGTERM)
time.sleep(60)
"""


def test_a_child_that_has_to_tidy_up_can_do_so_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent, child = start_parent(TIDY_PARENT, TIDY, str(tmp_path / "tidied"))
    parent.kill()
    parent.wait()
    if parent.stdout is not None:
        parent.stdout.close()
    until(lambda: not is_alive(child), "the child ends", 5)
    assert (tmp_path / "tidied").exists()
