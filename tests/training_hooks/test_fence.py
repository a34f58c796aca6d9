"""One trainer a project, and nobody promotes with an old token."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from segzero_ml.errors import JobError, StoreError
from tests.training_hooks.rq_world import ROOT, is_alive, until
from training_hooks.fence import Fence, acquire, check
from training_hooks.job_errors import StaleFenceError, TrainerBusyError
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer

HOLD = """
import subprocess, sys
from pathlib import Path
from training_hooks.fence import acquire
from training_hooks.redis_client import connect
fence = acquire(7, Path(sys.argv[2]), connect(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"], pass_fds=[fence.fileno()] if sys.argv[3] else [])
print(child.pid, flush=True)
child.wait()
"""


def test_tokens_grow_and_only_the_newest_may_promote(redis_client: Redis, tmp_path: Path) -> None:
    with acquire(7, tmp_path, redis_client) as first:
        check(first, redis_client)
    # Released, but nobody has taken over yet.
    check(first, redis_client)
    with acquire(7, tmp_path, redis_client) as second:
        assert second.token > first.token
        check(second, redis_client)
        with pytest.raises(StaleFenceError, match="taken over"):
            check(first, redis_client)
    check(Fence("7", second.token), redis_client)


def test_projects_do_not_disturb_each_other(redis_client: Redis, tmp_path: Path) -> None:
    with acquire(7, tmp_path, redis_client) as seven, acquire("8", tmp_path, redis_client) as eight:
        check(seven, redis_client)
        check(eight, redis_client)


def test_a_lock_that_is_given_up_twice_closes_nobody_elses_file(
    redis_client: Redis, tmp_path: Path
) -> None:
    with acquire(7, tmp_path, redis_client) as fence:
        number = fence.fileno()
        fence.release()
        with (tmp_path / "other").open("wb") as other:
            assert other.fileno() == number
            fence.release()
            other.write(b"whole")
    assert (tmp_path / "other").read_bytes() == b"whole"


def test_a_second_holder_is_told_who_the_first_is_and_draws_no_token(
    redis_client: Redis, tmp_path: Path
) -> None:
    with acquire(7, tmp_path, redis_client) as first:
        with pytest.raises(TrainerBusyError, match=r"by process \d+ on"):
            acquire(7, tmp_path, redis_client)
        check(first, redis_client)
    first.release()  # harmless when repeated
    acquire(7, tmp_path, redis_client).release()


def test_a_redis_that_lost_its_data_does_not_give_old_tokens_out_again(
    redis_client: Redis, tmp_path: Path
) -> None:
    acquire(7, tmp_path, redis_client).release()
    old = acquire(7, tmp_path, redis_client)
    old.release()
    redis_client.flushdb()
    with pytest.raises(StaleFenceError):
        check(old, redis_client)
    with acquire(7, tmp_path, redis_client) as new:
        assert new.token > old.token


def test_trainers_on_two_machines_share_the_tokens(redis_client: Redis, tmp_path: Path) -> None:
    with (
        acquire(7, tmp_path / "here", redis_client) as here,
        acquire(7, tmp_path / "there", redis_client) as there,
    ):
        check(there, redis_client)
        with pytest.raises(StaleFenceError):
            check(here, redis_client)


@pytest.mark.parametrize("passed", ["", "yes"], ids=["kept", "passed on"])
def test_a_killed_holder_frees_the_project_unless_its_trainer_lives(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path, passed: str
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, redis_server.url, str(tmp_path), passed],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    with holder.stdout:
        child = int(holder.stdout.readline())
    try:
        with pytest.raises(TrainerBusyError):
            acquire(7, tmp_path, redis_client)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        if passed:
            with pytest.raises(TrainerBusyError):
                acquire(7, tmp_path, redis_client)
        else:
            acquire(7, tmp_path, redis_client).release()
    finally:
        holder.kill()
        subprocess.run(["kill", "-9", str(child)], check=False)
    until(lambda: not is_alive(child), "the child is gone", 5)
    acquire(7, tmp_path, redis_client).release()


@pytest.mark.parametrize("name", ["", "../7", "a b", "x" * 65, "7:8"])
def test_a_name_that_is_none_is_refused(redis_client: Redis, tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match="letters"):
        acquire(name, tmp_path, redis_client)


def test_a_damaged_lock_file_or_key_is_no_obstacle(redis_client: Redis, tmp_path: Path) -> None:
    (tmp_path / "train-7.lock").write_bytes(b"\xff\xfe nonsense" * 1000)
    redis_client.set("segzero:fence:7", "nonsense")
    with acquire(7, tmp_path, redis_client) as fence:
        assert fence.token == 1
        check(fence, redis_client)


def test_without_redis_nobody_trains_and_nothing_is_promoted(tmp_path: Path) -> None:
    with connect(tmp_path / "nothing.sock", retries=0) as client:
        with pytest.raises(StoreError):
            acquire(7, tmp_path, client)
        with pytest.raises(StoreError):
            check(Fence("7", 1), client)


def test_a_folder_that_cannot_be_written_is_a_plain_error(
    redis_client: Redis, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot be used"):
        acquire(7, tmp_path / "file", redis_client)
