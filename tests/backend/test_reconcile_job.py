"""Reconciling as jobs: in slices that let others go first, and asked for by a schedule."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from backend.access import SECRET_HEADER
from backend.jobs import ALLOWED
from backend.label_studio import LabelStudio
from backend.label_studio_models import Webhook
from backend.learning.trigger import look
from backend.reconcile.job import enqueue, resume, work
from backend.reconcile.projects import is_ours
from backend.reconcile.run import Run
from backend.reconcile.schedule import Schedule
from backend.settings import Settings, load_settings
from segzero_ml.errors import ConfigError, InputError
from tests.backend.corrected import World, world
from tests.backend.many_tasks import PROJECT, SETTINGS, ManyTasks, served
from tests.backend.studio import TOKEN, URL, refusal
from tests.training_hooks.store_samples import correction, everything
from training_hooks.queue_jobs import make_job_id, resolve
from training_hooks.queues import QueueName, Queues
from training_hooks.store_values import ProjectKey

KEY = ProjectKey(SETTINGS.label_studio_name, PROJECT)


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def here(_world: World) -> World:
    _world.server.start()
    _world.client.flushdb()
    return _world


@pytest.fixture
def queues(here: World) -> Queues:
    return Queues(here.client, ALLOWED)


@pytest.fixture
def studio() -> ManyTasks:
    made = ManyTasks(random.Random(4))
    for _ in range(160):
        made.annotate(made.add_task())
    return made


def waiting(queues: Queues) -> list[dict[str, Any]]:
    """The arguments of the jobs that wait, in their order; they are taken out."""
    queue = queues.open(QueueName.INGEST)
    found = []
    for job_id in queue.job_ids:
        job = queue.fetch_job(job_id)
        assert job is not None
        assert job.func_name == "reconcile"
        found.append(job.kwargs)
    queue.empty()
    return found


def go_on(kwargs: dict[str, Any], client: LabelStudio, here: World) -> Run:
    """The run that a job with these arguments goes on with."""
    return resume(kwargs["project"], kwargs.get("standing"), client, SETTINGS, here.client)


def test_the_allow_list_leads_to_the_job() -> None:
    assert callable(resolve(ALLOWED["reconcile"]))


def test_a_run_that_gives_way_at_every_step_ends_up_the_same(
    here: World, queues: Queues, studio: ManyTasks
) -> None:
    with studio.client() as client:
        whole = work(resume(PROJECT, None, client, SETTINGS, here.client), queues, lambda: False)
        for number in [*studio.annotations][::7]:
            studio.edit(number)
        gone = [*studio.annotations][::11]
        for number in gone:
            studio.delete(number)
        enqueue(queues, PROJECT, 1)
        result: dict[str, Any] = {}
        slices = 0
        while jobs := waiting(queues):
            [kwargs] = jobs
            slices += 1
            going = go_on(kwargs, client, here)
            result = work(going, queues, lambda: True)
    assert whole["outcome"] == result["outcome"] == "done"
    assert slices > len(gone)
    assert result["removed"] == len(gone)
    assert result["annotations"] == len(studio.annotations)
    assert result["tasks"] == 160
    assert result["failed"] == 0
    corrections, withdrawn = studio.truth()
    assert everything(here.store, KEY) == corrections
    ids = set(here.store.annotation_ids(KEY, here.store.mark(KEY)))
    assert ids == set(corrections) | set(withdrawn)
    assert not here.client.keys("segzero:reconcile:*")


def test_a_slice_that_is_run_twice_counts_once(
    here: World, queues: Queues, studio: ManyTasks
) -> None:
    with studio.client() as client:
        work(resume(PROJECT, None, client, SETTINGS, here.client), queues, lambda: True)
        [kwargs] = waiting(queues)
        results = [work(go_on(kwargs, client, here), queues, lambda: False) for _ in range(2)]
    for result in results:
        assert result["tasks"] == 160
        assert result["annotations"] == len(studio.annotations)
    assert results[0]["is_complete"]


def test_what_a_run_remembers_may_be_lost_between_two_slices(
    here: World, queues: Queues, studio: ManyTasks
) -> None:
    with studio.client() as client:
        work(resume(PROJECT, None, client, SETTINGS, here.client), queues, lambda: False)
        work(resume(PROJECT, None, client, SETTINGS, here.client), queues, lambda: True)
        [kwargs] = waiting(queues)
        here.client.delete(*here.client.keys("segzero:reconcile:*"))
        work(go_on(kwargs, client, here), queues, lambda: False)
    corrections, _ = studio.truth()
    assert everything(here.store, KEY) == corrections


@pytest.mark.parametrize("change", [{"mark": "x", "more": 1}, {"tally": {}}, {"started_at": "?"}])
def test_a_state_that_is_none_is_refused(
    here: World, queues: Queues, studio: ManyTasks, change: dict[str, Any]
) -> None:
    with studio.client() as client:
        work(resume(PROJECT, None, client, SETTINGS, here.client), queues, lambda: True)
        [kwargs] = waiting(queues)
        kwargs["standing"] |= change
        with pytest.raises(InputError, match="state of a reconcile"):
            go_on(kwargs, client, here)


def test_a_project_with_another_kind_of_labelling_is_no_failure(
    here: World, queues: Queues, studio: ManyTasks
) -> None:
    studio.config = "<View/>"
    with studio.client() as client:
        result = work(resume(PROJECT, None, client, SETTINGS, here.client), queues, lambda: False)
    assert result["outcome"] == "not a project of this backend"


def test_without_a_label_studio_the_job_says_what_to_set(here: World) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(ALLOWED["reconcile"])(PROJECT)
    assert "SEGZERO_LABEL_STUDIO_URL" in caught.value.remedy


def test_the_same_request_counts_once(queues: Queues) -> None:
    assert enqueue(queues, 7, "a")
    assert not enqueue(queues, 7, "a")
    assert enqueue(queues, 7, "b")
    assert enqueue(queues, 8, "a")


def test_a_worker_reconciles_a_project_that_was_asked_for_three_times(
    here: World, queues: Queues, studio: ManyTasks
) -> None:
    for task in studio.tasks.values():
        task["data"]["image"] = "data:,"  # no time is spent on pictures
    for number in range(3):
        enqueue(queues, PROJECT, number)
    with served(studio) as url:
        subprocess.run(
            [sys.executable, "-m", "backend.cli", "worker", "ingest", "--burst"],
            env={
                **os.environ,
                "SEGZERO_DATA_DIR": str(here.folder),
                "SEGZERO_LABEL_STUDIO_URL": url,
                "SEGZERO_LABEL_STUDIO_TOKEN": TOKEN,
            },
            check=True,
            timeout=300,
        )
    corrections, withdrawn = studio.truth()
    ids = set(here.store.annotation_ids(KEY, here.store.mark(KEY)))
    assert ids == set(corrections) | set(withdrawn)
    assert queues.depth(QueueName.INGEST).dead == 0
    first = queues.find(make_job_id("reconcile", PROJECT, revision=0))
    assert first.status == "finished"
    assert first.progress is not None
    assert first.progress["total"] == 160


# Which webhooks are ours


def hook(url: str, project: int | None = 1, header: str | None = None) -> Webhook:
    return Webhook(id=1, url=url, project=project, headers={header: "s"} if header else {})


@pytest.mark.parametrize(
    ("webhook", "expected"),
    [
        (hook("http://10.0.0.5:9090/webhook"), True),
        (hook("http://10.0.0.5:9090/webhook/"), True),
        (hook("https://a.example/segzero/webhook", header=SECRET_HEADER), True),
        (hook("https://a.example/webhook", header=SECRET_HEADER.lower()), True),
        (hook("https://a.example/webhook"), False),
        (hook("http://10.0.0.5:9091/webhook"), False),
        (hook("http://10.0.0.5:9090/hook"), False),
        (hook("http://10.0.0.5:99999999/webhook"), False),
    ],
)
def test_a_webhook_of_this_backend_is_told_from_others(webhook: Webhook, expected: bool) -> None:
    assert is_ours(webhook, 9090) is expected


# The schedule


class Organisation:
    """Projects and webhooks of a Label Studio."""

    def __init__(self, projects: list[int], webhooks: list[Webhook]) -> None:
        self.projects = projects
        self.webhooks = webhooks
        self.is_away = False
        self.asked = threading.Event()

    def open(self, settings: Settings, timeout_s: float) -> LabelStudio:
        return LabelStudio(URL, TOKEN, timeout_s=timeout_s, transport=httpx.MockTransport(self))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        if self.is_away:
            return refusal(503, "Starting")
        if request.url.path == "/api/webhooks/":
            return httpx.Response(200, json=[one.model_dump() for one in self.webhooks])
        page, size = (int(request.url.params[name]) for name in ("page", "page_size"))
        some = self.projects[(page - 1) * size : page * size]
        more = f"{URL}?page={page + 1}" if page * size < len(self.projects) else None
        found = [{"id": number, "title": f"P{number}"} for number in some]
        return httpx.Response(200, json={"results": found, "next": more})


def settings(here: World, **more: Any) -> Settings:
    given = {"label_studio_url": URL, "label_studio_token": TOKEN, "port": 9090, **more}
    return load_settings(data_dir=here.folder, **given)


def asked_projects(queues: Queues) -> list[int]:
    return sorted(kwargs["project"] for kwargs in waiting(queues))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_projects_with_corrections_or_with_our_webhook_are_asked_for(
    here: World, queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    ours = "http://127.0.0.1:9090/webhook"
    webhooks = [hook(ours, 205), hook("http://elsewhere.example/webhook", 9)]
    organisation = Organisation(list(range(1, 231)), webhooks)
    for label_studio, project in (("label-studio", 3), ("label-studio", 900), ("other", 4)):
        here.store.upsert(correction(1, project=ProjectKey(label_studio, project)))
    schedule = Schedule(settings(here), open_client=organisation.open)
    for revision in ("a", "a", "b"):
        assert schedule.ask(revision) == (3, 205)
    assert asked_projects(queues) == [3, 3, 205, 205]
    assert [record.args for record in caplog.records if "is gone" in record.message] == [(900,)]
    organisation.webhooks.append(hook(ours, None))
    assert len(schedule.ask("c")) == 230


def test_nothing_is_trained_for_a_project_that_is_gone_until_it_is_seen_again(
    here: World, queues: Queues
) -> None:
    organisation = Organisation([3], [])
    for project in (3, 900):
        for number in range(1, 31):
            key = ProjectKey("label-studio", project)
            here.store.upsert(correction(number, number, task=number, project=key))
    given = settings(here, train_every_corrections=30)
    schedule = Schedule(given, open_client=organisation.open)
    schedule.ask("a")
    for by_hand in (False, True):
        assert look(here.client, given, 3, by_hand=by_hand)[0].train
        gone, _ = look(here.client, given, 900, by_hand=by_hand)
        assert not gone.train
        assert "no longer in Label Studio" in str(gone.refusal)
    organisation.projects.append(900)
    schedule.ask("b")
    assert look(here.client, given, 900)[0].train


def test_at_start_and_then_every_so_often(here: World, queues: Queues) -> None:
    organisation = Organisation([5], [hook("http://127.0.0.1:9090/webhook", 5)])
    schedules = [
        Schedule(settings(here, reconcile_every_s=0.5), open_client=organisation.open)
        for _ in range(2)
    ]
    for schedule in schedules:
        schedule.start()
    depth = lambda: queues.depth(QueueName.INGEST).waiting  # noqa: E731
    wait_for(lambda: depth() >= 3)
    for schedule in schedules:
        schedule.stop()
    after = depth()
    time.sleep(1.2)
    assert depth() == after


def test_several_backends_ask_once(here: World, queues: Queues) -> None:
    organisation = Organisation([5], [hook("http://127.0.0.1:9090/webhook", 5)])
    schedules = [
        Schedule(
            settings(here, reconcile_every_s=900), open_client=organisation.open, clock=lambda: 1e9
        )
        for _ in range(3)
    ]
    for schedule in schedules:
        schedule.start()
        wait_for(organisation.asked.is_set)
        organisation.asked.clear()
    wait_for(lambda: queues.depth(QueueName.INGEST).waiting == 1)
    for schedule in schedules:
        schedule.stop()
    assert asked_projects(queues) == [5]


def test_while_redis_or_label_studio_is_away_it_is_said_once_and_tried_again(
    here: World, queues: Queues, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.reconcile.schedule._FIRST_PAUSE_S", 0.05)
    caplog.set_level(logging.INFO)
    organisation = Organisation([5], [hook("http://127.0.0.1:9090/webhook", 5)])
    organisation.is_away = True
    calls = 0

    def opening(given: Settings, timeout_s: float) -> LabelStudio:
        nonlocal calls
        calls += 1
        return organisation.open(given, timeout_s)

    schedule = Schedule(settings(here), open_client=opening)
    schedule.start()
    wait_for(lambda: calls > 3)
    organisation.is_away = False
    wait_for(lambda: queues.depth(QueueName.INGEST).waiting == 1)
    schedule.stop()
    assert sum("Cannot ask for reconciles" in one.message for one in caplog.records) == 1
    assert sum("asked for again" in one.message for one in caplog.records) == 1
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "given", [{"label_studio_url": None, "label_studio_token": None}, {"reconcile_every_s": 0}]
)
def test_without_a_label_studio_or_a_wish_it_says_so_and_does_nothing(
    here: World, given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    organisation = Organisation([5], [])
    schedule = Schedule(settings(here, **given), open_client=organisation.open)
    schedule.start()
    schedule.stop()
    assert len(caplog.records) == 1
    assert not organisation.asked.is_set()
