"""Adding, finding, cancelling and refusing jobs; dead letters and what brings them back."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue, Retry
from rq.job import JOB_ID_PATTERN, Job
from rq.serializers import JSONSerializer

from segzero_ml.errors import ConfigError, JobError, StoreError
from tests.training_hooks.rq_jobs import ALLOWED
from tests.training_hooks.rq_world import POLICIES, WorkerProcess, count, lines, queues, until
from training_hooks.dead_letters import DeadLetter, DeadLetters
from training_hooks.failures import LONGEST_REASON, reason_line, redact, summarise
from training_hooks.job_errors import JobRefusedError
from training_hooks.queue_jobs import LARGEST_PAYLOAD, JsonSerializer, bind, make_job_id
from training_hooks.queue_moves import bury, claim
from training_hooks.queues import QueueName
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.worker_options import WorkerOptions

INGEST = QueueName.INGEST


def burst(server: EmbeddedServer, folder: Path, queue: str = "ingest") -> str:
    """Runs all that waits, and gives the worker's log."""
    log = folder / "worker.log"
    with WorkerProcess(server.url, log, queue, burst=True) as worker:
        assert worker.finish() == 0, log.read_text()
    return log.read_text()


# Ids and payloads -------------------------------------------------------------------------


@given(st.lists(st.text(), min_size=1, max_size=4), st.text())
def test_a_job_id_of_anything_is_one_that_rq_takes(parts: list[str], revision: str) -> None:
    made = make_job_id(*parts, revision=revision)
    assert JOB_ID_PATTERN.fullmatch(made)
    assert len(made) <= 150


def test_job_ids_tell_revisions_and_parts_apart() -> None:
    ids = {
        make_job_id("ingest", 7, 12, revision="2026-11-22T10:00:00.000001Z"),
        make_job_id("ingest", 7, 12, revision="2026-11-22T10:00:00.000002Z"),
        make_job_id("ingest", 71, 2, revision="2026-11-22T10:00:00.000001Z"),
        make_job_id("a-b", "c", revision=1),
        make_job_id("a", "b-c", revision=1),
        make_job_id("x" * 400, revision=1),
        make_job_id("x" * 401, revision=1),
    }
    assert len(ids) == 7
    assert make_job_id("a", revision=1) == make_job_id("a", revision="1")


@pytest.mark.parametrize("hostile", [b"NaN", b"\xff\xfe", b"", b"[" * 100_000, b" " * (1 << 21)])
def test_the_serializer_takes_json_only(hostile: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        JsonSerializer.loads(hostile)


@pytest.mark.parametrize(
    ("name", "path"), [("Upper", "a.b"), ("ok", "os"), ("ok", "a..b"), ("", "a.b"), ("ok", "a.b()")]
)
def test_a_malformed_allow_list_is_refused(name: str, path: str) -> None:
    with pytest.raises(ConfigError, match="allow-list"):
        bind({name: path})


def test_an_allow_list_cannot_be_changed_afterwards() -> None:
    given_list = {"remember": "a.b"}
    job_class = bind(given_list)
    given_list["system"] = "os.system"
    assert dict(job_class.allowed) == {"remember": "a.b"}
    with pytest.raises(TypeError):
        job_class.allowed["system"] = "os.system"  # type: ignore[index]


def test_worker_options_that_would_abandon_living_jobs_are_refused() -> None:
    with pytest.raises(ConfigError, match="between two heartbeats"):
        WorkerOptions(heartbeat_s=10, abandon_after_s=11)
    with pytest.raises(ConfigError, match="1 s at least"):
        WorkerOptions(poll_s=0)


# Adding -----------------------------------------------------------------------------------


def test_a_job_runs_and_its_result_is_kept(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    assert jobs.enqueue(INGEST, "remember", "one-1", {"path": str(mark), "line": "ä"})
    assert jobs.depth(INGEST).waiting == 1
    burst(redis_server, tmp_path)
    assert lines(mark) == ["ä"]
    view = jobs.find("one-1")
    assert (view.status, view.function, view.queue) == ("finished", "remember", INGEST)
    job = Job.fetch("one-1", connection=redis_client, serializer=JSONSerializer)
    assert job.return_value() == {"wrote": "ä"}
    assert (job.timeout, job.result_ttl) == (60, 600)
    assert 0 < redis_client.ttl(job.key) <= 600
    depth = jobs.depth(INGEST)
    assert (depth.waiting, depth.running, depth.dead, depth.workers) == (0, 0, 0, 0)
    # Nothing of RQ's bookkeeping stays behind.
    assert redis_client.keys("rq:execution*") == []
    assert redis_client.exists("rq:queue:ingest:intermediate", "rq:wip:ingest") == 0


def test_a_job_of_a_known_id_is_added_once_also_after_it_has_run(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    arguments = {"path": str(mark)}
    assert [jobs.enqueue(INGEST, "remember", "one-1", arguments) for _ in range(3)] == [
        True,
        False,
        False,
    ]
    burst(redis_server, tmp_path)
    assert not jobs.enqueue(INGEST, "remember", "one-1", arguments)
    assert jobs.enqueue(INGEST, "remember", "one-2", arguments)
    burst(redis_server, tmp_path)
    assert count(mark, "ran") == 2


def test_an_id_that_stands_in_the_queue_twice_runs_once(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    queues(redis_client).enqueue(INGEST, "remember", "one-1", {"path": str(mark)})
    redis_client.rpush("rq:queue:ingest", "one-1", "one-1")
    burst(redis_server, tmp_path)
    assert count(mark, "ran") == 1


@pytest.mark.parametrize(
    ("function", "job_id", "kwargs", "says"),
    [
        ("os.system", "a-1", {}, "allow-list"),
        ("system", "a-1", {}, "allow-list"),
        ("remember", "a:1", {}, "no job id"),
        ("remember", "", {}, "no job id"),
        ("remember", "a-1", {"path": Path("x")}, "not JSON"),
        ("remember", "a-1", {"x": float("nan")}, "not JSON"),
        ("remember", "a-1", {"x": "y" * LARGEST_PAYLOAD}, "bytes of JSON"),
    ],
)
def test_impossible_jobs_are_not_taken(
    redis_client: Redis, function: str, job_id: str, kwargs: dict[str, object], says: str
) -> None:
    with pytest.raises(JobError, match=says):
        queues(redis_client).enqueue(INGEST, function, job_id, kwargs)
    assert redis_client.dbsize() == 0


def test_a_redis_that_is_away_is_a_store_error(tmp_path: Path) -> None:
    with connect(tmp_path / "nothing.sock", retries=0) as client:
        with pytest.raises(StoreError):
            queues(client).enqueue(INGEST, "remember", "one-1", {"path": "x"})
        with pytest.raises(StoreError):
            queues(client).depth(INGEST)
        with pytest.raises(StoreError):
            DeadLetters(client, ALLOWED).list()


# Refusing ---------------------------------------------------------------------------------


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture(scope="module")
def refused(
    redis_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, DeadLetter], DeadLetters]]:
    """What one worker made of every hostile job, with a good one at the end."""
    folder = tmp_path_factory.mktemp("refused")
    mark = folder / "pwned"
    touch = f"touch {mark}"
    with connect(redis_server.url) as client:
        client.flushdb()
        plain = Queue("ingest", connection=client, serializer=JSONSerializer)
        pickled = Queue("ingest", connection=client)
        good = {"path": str(folder / "good")}
        plain.enqueue("os.system", touch, job_id="system", retry=Retry(max=3))
        plain.enqueue("tests.training_hooks.rq_jobs.remember", str(mark), job_id="dotted")
        pickled.enqueue(os.system, touch, job_id="pickled", retry=Retry(max=3))
        pickled.enqueue("remember", Bomb(mark), job_id="bomb")
        for kind in ("success", "failure", "stopped"):
            job = plain.enqueue("remember", kwargs=good, job_id=f"callback-{kind}")
            client.hset(job.key, f"{kind}_callback_name", "os.system")
        job = plain.enqueue("remember", kwargs=good, job_id="webhook")
        client.hset(job.key, "webhooks", '[{"url": "http://127.0.0.1:9/", "job_status": "failed"}]')
        plain.enqueue("remember", kwargs=good, job_id="endless", job_timeout=-1)
        job = plain.enqueue("remember", kwargs=good, job_id="instance")
        client.hset(job.key, "data", JSONSerializer.dumps(["format", touch, [], {}]))
        for name, field, value in (
            ("status", "status", "nonsense"),
            ("date", "created_at", "yesterday"),
            ("timeout", "timeout", "soon"),
            ("not-utf8", "origin", b"\xff"),
        ):
            job = plain.enqueue("remember", kwargs=good, job_id=f"damaged-{name}")
            client.hset(job.key, field, value)
        client.set("rq:job:a-string", "x")
        client.rpush("rq:queue:ingest", "a-string", "no/such id", "gone-long-ago")
        # Also where a worker looks besides the queue.
        client.set("rq:job:scheduled-string", "x")
        client.zadd("rq:scheduled:ingest", {"scheduled-string": 1, "scheduled-gone": 1})
        client.zadd("rq:wip:ingest", {"no-colon": 1, "gone-too:abc": 1})
        queues(client).enqueue(INGEST, "remember", "good-1", good)
        log = burst(redis_server, folder)
        assert lines(folder / "good") == ["ran"], log
        letters = DeadLetters(client, ALLOWED, POLICIES)
        yield mark, {letter.job_id: letter for letter in letters.list()}, letters


Refused = tuple[Path, dict[str, DeadLetter], DeadLetters]


@pytest.mark.parametrize(
    ("job_id", "says"),
    [
        ("system", "os.system is not on the allow-list"),
        ("dotted", "is not on the allow-list"),
        ("pickled", "not JSON"),
        ("bomb", "not JSON"),
        ("callback-success", "callbacks"),
        ("callback-failure", "callbacks"),
        ("callback-stopped", "callbacks"),
        ("webhook", "webhooks"),
        ("endless", "no time limit"),
        ("instance", "not on the allow-list|not a list"),
        ("damaged-status", "cannot be read"),
        ("damaged-date", "cannot be read"),
        ("damaged-timeout", "cannot be read"),
        ("damaged-not-utf8", "cannot be read"),
        ("a-string", "cannot be read"),
        ("scheduled-string", "cannot be read"),
    ],
)
def test_a_hostile_job_does_not_run_and_becomes_a_dead_letter(
    refused: Refused, job_id: str, says: str
) -> None:
    mark, letters, _ = refused
    assert not mark.exists()
    letter = letters[job_id]
    assert letter.queue == INGEST
    assert not letter.can_retry
    assert any(words in letter.reason for words in says.split("|")), letter.reason


def test_nothing_but_the_hostile_jobs_is_a_dead_letter(refused: Refused) -> None:
    _, letters, dead = refused
    others = set(letters) - {"good-1"}
    assert len(others) == 17  # the sixteen above, and the id that is none
    assert dead.count()[INGEST] == 17
    assert [name for name in letters if name.startswith("unreadable-")]


def test_refused_jobs_cannot_be_tried_again(refused: Refused) -> None:
    mark, _, dead = refused
    with pytest.raises(JobRefusedError, match="allow-list"):
        dead.retry("system")
    assert dead.retry() == 0
    assert not mark.exists()


# Failing ----------------------------------------------------------------------------------


def test_a_job_is_tried_again_after_a_pause_and_its_last_failure_is_shown(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "flaky", "flaky-1", {"path": str(mark), "failures": 2})
    with WorkerProcess(redis_server.url, tmp_path / "log"):
        until(lambda: count(mark, "try") == 1, "the first try")
        until(lambda: jobs.find("flaky-1").last_failure is not None, "the failure is noted")
        failure = jobs.find("flaky-1").last_failure
        assert failure is not None
        assert failure.startswith("ValueError: ")
        until(lambda: jobs.find("flaky-1").status == "finished", "the third try")
    assert count(mark, "try") == 3
    assert DeadLetters(redis_client, ALLOWED).count()[INGEST] == 0


def test_a_dead_letter_says_why_without_secrets_and_can_be_brought_back(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs, dead = queues(redis_client), DeadLetters(redis_client, ALLOWED, POLICIES)
    # The predict queue of these tests does not try again.
    jobs.enqueue(QueueName.PREDICT, "flaky", "flaky-1", {"path": str(mark), "failures": 1})
    log = burst(redis_server, tmp_path, "predict")
    (letter,) = dead.list()
    assert (letter.job_id, letter.function, letter.can_retry) == ("flaky-1", "flaky", True)
    assert letter.reason.startswith("ValueError: https://***@studio/api?***")
    assert "rq_jobs.py:" in letter.summary
    assert " in flaky" in letter.summary
    for secret in ("hunter2", "sig=abc", "0123456789abcdef"):
        assert secret not in letter.summary
        assert secret not in log
    assert dead.count()[QueueName.PREDICT] == 1
    assert jobs.depth(QueueName.PREDICT).dead == 1

    assert dead.retry("flaky-1") == 1
    assert dead.list() == []
    burst(redis_server, tmp_path, "predict")
    assert jobs.find("flaky-1").status == "finished"
    with pytest.raises(JobError, match="no failed job"):
        dead.retry("flaky-1")


def test_all_dead_letters_come_back_in_the_order_they_died_with_all_their_tries(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    jobs, dead = queues(redis_client), DeadLetters(redis_client, ALLOWED, POLICIES)
    for number in range(3):
        jobs.enqueue(QueueName.PREDICT, "leave", f"leave-{number}")
    jobs.enqueue(QueueName.PREDICT, "odd", "odd-1")
    burst(redis_server, tmp_path, "predict")
    assert {letter.reason for letter in dead.list()} == {"SystemExit: gone"}
    assert len(dead.list(limit=2)) == 2
    assert dead.list(limit=0) == []
    assert dead.list(queue=INGEST) == []
    # A result that JSON cannot say does not fail the job.
    assert jobs.find("odd-1").status == "finished"
    assert dead.retry() == 3
    assert jobs.depth(QueueName.PREDICT).waiting == 3
    assert redis_client.ttl("rq:job:leave-0") == -1


def test_listing_survives_what_others_wrote_there(redis_client: Redis) -> None:
    dead = DeadLetters(redis_client, ALLOWED, POLICIES)
    jobs = queues(redis_client)
    queue = jobs.open(INGEST)
    for name in ("one-1", "two-2", "three-3"):
        jobs.enqueue(INGEST, "remember", name, {"path": "x"})
        job = queue.fetch_job(name)
        assert isinstance(job, Job)
        bury(queue, job, "why\x1b[31m\nwhere")
    redis_client.zadd("rq:failed:ingest", {"bad\x1b[31m id": 1, "forgotten-1": 1, "string-1": 1})
    redis_client.set("rq:job:string-1", "x")
    redis_client.delete("rq:results:two-2")
    redis_client.set("rq:results:two-2", "x")
    redis_client.delete("rq:results:three-3")
    redis_client.xadd("rq:results:three-3", {"type": 2, "exc_string": "AAAA"})
    redis_client.delete("rq:queue:ingest")
    letters = {letter.job_id: letter for letter in dead.list()}
    assert letters["one-1"].summary == "why [31m\n  where"
    assert letters["two-2"].reason == letters["three-3"].reason == "The reason was not recorded."
    assert "cannot be read" in letters["string-1"].reason
    assert all(letter.summary.isprintable() for letter in dead.list() if "\n" not in letter.summary)
    assert "forgotten-1" not in letters
    assert dead.retry() == 3


# Cancelling and progress ------------------------------------------------------------------


def test_a_waiting_job_is_cancelled_at_once_and_never_runs(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "remember", "one-1", {"path": str(mark)})
    assert jobs.cancel("one-1") is True
    burst(redis_server, tmp_path)
    assert not mark.exists()
    assert jobs.find("one-1").status == "canceled"
    with pytest.raises(JobError, match="ended already"):
        jobs.cancel("one-1")
    with pytest.raises(JobError, match="no job"):
        jobs.cancel("two-2")


def test_a_job_cancelled_between_popping_and_running_does_not_run(redis_client: Redis) -> None:
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "remember", "one-1", {"path": "x"})
    queue = jobs.open(INGEST)
    redis_client.lmove(queue.key, queue.intermediate_queue_key)
    job = queue.fetch_job("one-1")
    assert job is not None
    assert jobs.cancel("one-1") is True
    assert claim(queue, job, "worker", 10) is None
    assert jobs.depth(INGEST).running == 0


def test_only_one_of_two_workers_claims_a_job(redis_client: Redis) -> None:
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "remember", "one-1", {"path": "x"})
    queue = jobs.open(INGEST)
    redis_client.lmove(queue.key, queue.intermediate_queue_key)
    job = queue.fetch_job("one-1")
    assert job is not None
    assert claim(queue, job, "first", 10) is not None
    assert claim(queue, job, "second", 10) is None
    assert jobs.find("one-1").status == "started"


def test_a_running_job_shows_its_progress_and_ends_when_asked(
    redis_server: EmbeddedServer, redis_client: Redis, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "obedient", "long-1", {"path": str(mark)})
    with WorkerProcess(redis_server.url, tmp_path / "log"):
        until(lambda: (jobs.find("long-1").progress or {}).get("done", 0) > 0, "progress")
        progress = jobs.find("long-1").progress
        assert progress is not None
        assert (progress["total"], progress["note"]) == (600, "waiting to be told")
        assert jobs.depth(INGEST).workers == 1
        assert jobs.cancel("long-1") is False
        until(lambda: jobs.find("long-1").status == "canceled", "the job ends")
    assert count(mark, "never") == 0
    # It is neither tried again nor a dead letter, and the flag is gone.
    assert DeadLetters(redis_client, ALLOWED).count()[INGEST] == 0
    assert jobs.depth(INGEST).scheduled == 0
    assert redis_client.keys("segzero:cancel:*") == []


def test_looking_at_the_queues_changes_nothing(redis_client: Redis) -> None:
    """RQ's own counting re-queues what it takes for abandoned."""
    jobs = queues(redis_client)
    jobs.enqueue(INGEST, "remember", "one-1", {"path": "x"})
    queue = jobs.open(INGEST)
    redis_client.lmove(queue.key, queue.intermediate_queue_key)
    job = queue.fetch_job("one-1")
    assert job is not None
    assert claim(queue, job, "worker", -5) is not None  # abandoned five seconds ago
    before = {key: redis_client.dump(key) for key in redis_client.keys("*")}
    assert jobs.depth(INGEST).running == 1
    jobs.find("one-1")
    DeadLetters(redis_client, ALLOWED).list()
    assert {key: redis_client.dump(key) for key in redis_client.keys("*")} == before


# Summaries --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Token 0123456789abcdef0123456789abcdef01234567",
        "{'Authorization': 'Bearer s3cret-s3cret'}",
        "redis://:s3cret-s3cret@127.0.0.1:6379/0",
        "GET https://bucket/x.png?X-Amz-Signature=s3cret-s3cret failed",
        '{"password": "s3cret-s3cret"}',
        "X-SegZero-Secret: s3cret-s3cret",
        "api_key=s3cret-s3cret",
        "token s3cret-s3cret",
        "eyJhbGciOiJIUzI1NiJ9.eyJzM2NyZXQiOjF9.s3cret",
        "hf_s3crets3crets3crets3cret",
        "0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_secrets_are_struck_out(text: str) -> None:
    struck = redact(text)
    assert "***" in struck
    for secret in ("s3cret", "0123456789abcdef"):
        assert secret not in struck


def test_what_is_no_secret_stays() -> None:
    text = "MaskError: task 12 of project 7: 3 runs for 480 x 640, see https://studio/tasks/12"
    assert redact(text) == text


@given(st.text(max_size=3000))
def test_a_reason_is_one_short_printable_line(text: str) -> None:
    line = reason_line(text)
    assert len(line) <= LONGEST_REASON
    assert line.isprintable()


def test_a_summary_names_the_cause_and_the_place_even_of_a_broken_exception() -> None:
    class RudeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    try:
        try:
            raise RudeError
        except RudeError as rude:
            raise ValueError("outer\nsecond line") from rude
    except ValueError as error:
        first, second, place = summarise(error).splitlines()
    assert first == "ValueError: outer second line"
    assert "RudeError" in second
    assert "test_queues.py" in place


def test_pickles_are_really_dangerous(tmp_path: Path) -> None:
    """The bomb of these tests goes off where somebody unpickles it."""
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Bomb(mark)))  # noqa: S301
    assert mark.exists()
