"""`segzero status` and `segzero retry` on a real Redis, a real store and a real spool."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from backend.redis_access import spool_folder
from backend.report import collect
from segzero_ml.corrections import Verdict
from tests.backend.corrected import PROJECT, ROOT, Run, World, runner, world
from tests.training_hooks.store_samples import MORNING, correction
from training_hooks.queues import QueueName, Queues
from training_hooks.spool import Spool
from training_hooks.store_values import ProjectKey


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def here(_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Running and empty; the module shares the server."""
    return _world.use(monkeypatch)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def fill(here: World) -> None:
    """Ten corrections of project 7, one withdrawn annotation, one of project 8."""
    verdicts = [Verdict.ACCEPTED] * 4 + [Verdict.EDITED] * 3 + [Verdict.DRAWN_BY_HAND] * 2
    for number, verdict in enumerate([*verdicts, Verdict.NOTHING_HERE], start=1):
        iou = {Verdict.ACCEPTED: 1.0, Verdict.EDITED: 0.5}.get(verdict)
        here.store.upsert(
            correction(
                number,
                number,
                task=number,
                verdict=verdict,
                edit_iou=iou,
                lead_time_s=30.0 if verdict is Verdict.DRAWN_BY_HAND else 12.0,
                project=PROJECT,
            )
        )
    skipped = correction(90, 90, project=PROJECT)
    here.store.withdraw(skipped.key, skipped.revision, skipped.task)
    here.store.upsert(correction(50, 500, project=ProjectKey(PROJECT.label_studio, 8)))
    here.store.set_watermark(PROJECT, "reconcile", MORNING)


def test_a_healthy_installation_is_shown_with_everything_in_numbers(here: World, run: Run) -> None:
    fill(here)
    ran = run("status", "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    assert report["healthy"] is True
    assert report["redis"]["up"] is True
    assert report["queues"]["ingest"] == {
        "waiting": 0,
        "running": 0,
        "scheduled": 0,
        "dead": 0,
        "workers": 0,
    }
    seven, eight = report["projects"]
    assert (seven["project"], eight["project"]) == (7, 8)
    assert seven["verdicts"] == {
        "accepted": 4,
        "edited": 3,
        "rejected": 0,
        "nothing_here": 1,
        "drawn_by_hand": 2,
    }
    assert (seven["corrections"], seven["withdrawn"]) == (10, 1)
    assert seven["accept_rate"] == pytest.approx(4 / 8)
    assert seven["mean_edit_iou"] == pytest.approx(5.5 / 7)
    assert seven["median_lead_time_shown_s"] == 12.0
    assert seven["median_lead_time_alone_s"] == 30.0
    assert seven["reconciled_at"] == MORNING.isoformat()
    assert eight["reconciled_at"] is None
    assert [one["annotation"] for one in report["recent"]] == [50, 10, 9, 8, 7]
    assert report["recent"][1]["verdict"] == "nothing_here"
    assert report["spool"]["records"] == 0
    assert report["backend"]["runs"] is False


def test_people_get_the_same_in_words(here: World, run: Run) -> None:
    fill(here)
    ran = run("status")
    assert ran.code == 0
    assert re.search(r"Redis +up", ran.out)
    rows = [line.replace("│", " ").split() for line in ran.out.splitlines()]
    assert ["7", "10", "4", "3", "0", "1", "2", "1"] in rows
    assert any(row[:7] == ["7", "50%", "0.79", "12.0", "s", "30.0", "s"] for row in rows)
    assert any(row[-6:] == ["Edited", "0.50", "1", "the", "red", "star"] for row in rows)
    assert max(map(len, ran.out.splitlines())) <= 80


def test_one_project_can_be_asked_for(here: World, run: Run) -> None:
    fill(here)
    report = json.loads(run("status", "--json", "--project", 8).out)
    assert [view["project"] for view in report["projects"]] == [8]
    assert [one["annotation"] for one in report["recent"]] == [50]


def test_without_any_correction_that_is_said(here: World, run: Run) -> None:
    ran = run("status")
    assert ran.code == 0
    assert "no corrections yet" in ran.out


def test_while_redis_is_away_the_spool_is_still_shown(here: World, run: Run) -> None:
    with Spool(spool_folder(here.settings)) as spool:
        for _ in range(3):
            spool.append(b"an event")
        here.server.stop()
        ran, for_people = run("status", "--json"), run("status")
        report = json.loads(ran.out)
        spool.acknowledge(3)
    assert ran.code == for_people.code == 1
    assert report["healthy"] is False
    assert report["redis"]["up"] is False
    assert report["redis"]["remedy"]
    assert (report["queues"], report["projects"]) == (None, None)
    assert report["spool"]["records"] == 3
    assert report["spool"]["bytes"] > 24
    assert "3 webhooks wait" in for_people.out
    assert "What to do:" in for_people.out


def test_where_there_never_was_a_redis_it_says_how_to_start_one(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SEGZERO_PORT", "9")
    ran = run("status")
    assert ran.code == 1
    assert "segzero up" in ran.out
    assert list(tmp_path.iterdir()) == []


def test_the_password_of_redis_is_shown_nowhere(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SEGZERO_PORT", "9")
    monkeypatch.setenv("SEGZERO_REDIS_URL", "redis://:sesame-open@127.0.0.1:9/0")
    for arguments in (("status",), ("status", "--json"), ("retry", "--all")):
        ran = run(*arguments)
        assert ran.code == 1
        assert "sesame" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("age_s", "count", "says"), [(700, 1, "waited for 12 minutes"), (1, 31, "nearly full")]
)
def test_a_spool_that_is_old_or_full_is_an_alarm(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch, age_s: float, count: int, says: str
) -> None:
    monkeypatch.setenv("SEGZERO_SPOOL_BYTES", str(32 << 20))
    with Spool(spool_folder(here.settings), clock=lambda: time.time() - age_s) as spool:
        numbers = [spool.append(bytes(1_000_000)) for _ in range(count)]
        ran, for_people = run("status", "--json"), run("status")
        spool.acknowledge(numbers[-1])
    alarm = json.loads(ran.out)["spool"]["alarm"]
    assert says in alarm
    assert ran.code == for_people.code == 1
    assert "What to do:" in for_people.out


def test_a_spool_that_cannot_be_read_is_said_and_hides_nothing_else(here: World, run: Run) -> None:
    fill(here)
    folder = spool_folder(here.settings)
    aside = folder.with_name("aside")
    if folder.exists():
        folder.rename(aside)
    folder.write_text("not a folder")
    try:
        ran = run("status", "--json")
    finally:
        folder.unlink()
        if aside.exists():
            aside.rename(folder)
    report = json.loads(ran.out)
    assert ran.code == 1
    assert report["spool"]["records"] is None
    assert report["spool"]["alarm"]
    assert report["projects"][0]["corrections"] == 10


def test_dead_letters_are_shown_with_their_reason_and_can_be_tried_again(
    here: World, run: Run
) -> None:
    here.make_dead_letters("one-1", "two-2", "three-3")
    letters = json.loads(run("status", "--json").out)["dead_letters"]
    assert {letter["id"] for letter in letters} == {"one-1", "two-2", "three-3"}
    assert letters[0]["reason"] == "SystemExit: gone"
    assert letters[0]["can_retry"] is True
    assert datetime.fromisoformat(letters[0]["at"]) > datetime.now(UTC) - timedelta(minutes=5)
    assert "SystemExit: gone" in run("status").out

    ran = run("retry", "--all", "--dry-run")
    assert ran.code == 0
    assert "Would be tried again: 3" in ran.out
    assert run("retry", "one-1", "--dry-run").out.count("one-1") == 1
    assert Queues(here.client, {}).depth(QueueName.PREDICT).dead == 3

    ran = run("retry", "one-1")
    assert ran.code == 0
    assert "1 job." in ran.out
    assert "No worker of the queue predict runs" in ran.out
    assert "2 jobs." in run("retry", "--all").out
    depth = Queues(here.client, {}).depth(QueueName.PREDICT)
    assert (depth.waiting, depth.dead) == (3, 0)
    assert "0 jobs." in run("retry", "--all").out


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_job_that_is_no_dead_letter_cannot_be_tried_again(
    here: World, run: Run, options: tuple[str, ...]
) -> None:
    ran = run("retry", "nobody-1", *options)
    assert ran.code == 1
    assert "There is no failed job 'nobody-1'" in ran.err


def test_retry_wants_one_job_or_all(here: World, run: Run) -> None:
    assert run("retry").code == 2
    assert run("retry", "one-1", "--all").code == 2


def test_text_of_others_does_not_change_the_terminal(here: World, run: Run) -> None:
    here.store.upsert(correction(1, content="x", project=PROJECT))
    here.client.rpush("rq:queue:ingest", "x")
    ran = run("status")
    assert "\x1b" not in ran.out


def test_following_shows_what_is_new_until_it_is_interrupted(here: World) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "backend.cli", "status", "--follow", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["recent"] == []
        here.store.upsert(correction(5, project=PROJECT))
        seen = [json.loads(process.stdout.readline())["recent"] for _ in range(3)]
        assert [one["annotation"] for one in seen[-1]] == [5]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.wait()


class _Ready(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("body", "state", "version"),
    [
        (b'{"status": "ready", "model_version": "tiny-1"}', "ready", "tiny-1"),
        (b'{"status": "loading", "model_version": null}', "loading", None),
        (b"<html>", "", None),
        (b"[1]", "", None),
        (b'{"status": 7}', "", None),
    ],
)
def test_the_backend_is_asked_how_it_does(
    here: World, monkeypatch: pytest.MonkeyPatch, body: bytes, state: str, version: str | None
) -> None:
    handler = type("Handler", (_Ready,), {"body": body})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("SEGZERO_PORT", str(server.server_port))
        monkeypatch.setenv("SEGZERO_HOST", "0.0.0.0")  # noqa: S104
        report = collect(here.settings)
        thread.join(30)
    assert (report.backend.state, report.backend.model_version) == (state, version)
    assert report.backend.runs is bool(state)
