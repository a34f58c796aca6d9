"""What the ingest job makes of a change: a real Redis, and Label Studio at the network's seam."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from PIL import Image
from redis import Redis

from backend.annotations import ImageFacts
from backend.intake.changes import Job, Saved, SavedElsewhere, TrainingAsked, pack
from backend.intake.events import read_event
from backend.intake.image_facts import ImageLookup
from backend.intake.ingest_job import ingest, run
from backend.intake.studio import Studio
from backend.settings import Settings, load_settings
from segzero_ml.corrections import Correction, Verdict
from segzero_ml.errors import ConfigError, LabelStudioError, MaskError, StoreError
from segzero_ml.types import ImageSize
from tests.backend.annotated import (
    HEIGHT,
    LABELLING,
    RING,
    STAR,
    WIDTH,
    brush,
    kept,
    predicted,
    prediction,
    task,
)
from tests.backend.intake_world import KEY, PROJECT, deleted, encode, project, saved, tasks_deleted
from training_hooks.loop_reader import START_TRAINING
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

URL = "http://studio.test:8080"


class Answers:
    """What Label Studio answers, and what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, Any] = {"/api/predictions/": []}
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        found = self.replies.get(request.url.path)
        if found is None:
            return httpx.Response(404, json={"detail": "Not found."})
        if isinstance(found, int):
            return httpx.Response(found)
        if isinstance(found, bytes):
            return httpx.Response(200, content=found)
        return httpx.Response(200, json=found)

    def paths(self) -> list[str]:
        return [request.url.path for request in self.asked]


class Ingest:
    """Runs changes against one Redis and one Label Studio."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.redis, self.settings, self.answers = redis, settings, Answers()
        self.store = CorrectionStore(redis)

    def look(self) -> ImageLookup:
        return ImageLookup(self.settings, self.redis, transport=httpx.MockTransport(self.answers))

    def __call__(self, change: Job) -> str:
        transport = httpx.MockTransport(self.answers)
        with Studio(self.settings, transport) as studio:
            return ingest(change, self.settings, self.redis, studio, self.look())

    def event(self, event: object) -> list[str]:
        return [self(change) for change in told(event)]

    def stored(self, annotation: int) -> Correction | None:
        return self.store.get(KEY.annotation(annotation))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(server: EmbeddedServer) -> Iterator[Redis]:
    with connect(server.url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def job(redis: Redis) -> Ingest:
    return Ingest(redis, load_settings(label_studio_url=URL, label_studio_token="a" * 40))


def told(event: object) -> tuple[Any, ...]:
    changes = read_event(encode(event)).changes
    assert changes is not None
    return changes


def png(width: int = WIDTH, height: int = HEIGHT, colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


def test_annotation_is_paired_with_the_prediction_it_came_from(job: Ingest) -> None:
    shown = predicted(RING)
    job.answers.replies["/api/predictions/"] = [
        prediction(predicted(STAR), id=500, model_version="other"),
        prediction(shown, id=501),
    ]
    assert job.event(saved(1, result=[kept(shown)], parent_prediction=501)) == ["created"]
    found = job.stored(1)
    assert found is not None
    assert (found.verdict, found.model_version) == (Verdict.ACCEPTED, "tiny-1")
    [call] = [one for one in job.answers.asked if one.url.path == "/api/predictions/"]
    assert call.url.params["task"] == "1001"
    assert call.headers["Authorization"] == f"Token {'a' * 40}"


def test_empty_annotation_of_a_prediction_says_that_nothing_is_here(job: Ingest) -> None:
    job.answers.replies["/api/predictions/"] = [prediction(predicted(RING), id=501)]
    job.event(saved(1, result=[], parent_prediction=501))
    found = job.stored(1)
    assert found is not None
    assert found.verdict is Verdict.NOTHING_HERE


def test_predictions_are_not_asked_for_where_there_is_nothing_to_pair(job: Ingest) -> None:
    job.event(saved(1, result=[]))
    job.event(saved(2, was_cancelled=True))
    assert "/api/predictions/" not in job.answers.paths()


def test_label_studio_that_fails_leaves_the_store_alone(job: Ingest) -> None:
    job.answers.replies["/api/predictions/"] = 500
    with pytest.raises(LabelStudioError):
        job.event(saved(1))
    assert job.stored(1) is None
    job.answers.replies["/api/predictions/"] = []
    assert job.event(saved(1)) == ["created"]


def test_without_a_label_studio_to_ask_the_correction_is_kept_all_the_same(redis: Redis) -> None:
    job = Ingest(redis, load_settings())
    assert job.event(saved(1, parent_prediction=501)) == ["created"]
    assert job.answers.asked == []
    found = job.stored(1)
    assert found is not None
    assert found.image_sha256 is None


def test_image_is_measured_hashed_and_fetched_once(job: Ingest) -> None:
    job.answers.replies["/data/upload/7/scene.png"] = png()
    job.event(saved(1))
    job.event(saved(2))
    found = job.stored(2)
    assert found is not None
    assert found.image_sha256 == hashlib.sha256(png()).hexdigest()
    assert found.size == ImageSize(WIDTH, HEIGHT)
    assert job.answers.paths().count("/data/upload/7/scene.png") == 1


def test_image_is_measured_as_the_browser_shows_it(job: Ingest) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(file, "JPEG", exif=exif)
    job.answers.replies["/data/upload/7/scene.png"] = file.getvalue()
    facts = job.look()(task(), LABELLING)
    assert facts is not None
    assert facts.size == ImageSize(WIDTH, HEIGHT)


@pytest.mark.parametrize("reply", [None, 500, b"no image", png()[:60]])
def test_correction_counts_without_its_image(job: Ingest, reply: object) -> None:
    if reply is not None:
        job.answers.replies["/data/upload/7/scene.png"] = reply
    assert job.event(saved(1)) == ["created"]
    found = job.stored(1)
    assert found is not None
    assert (found.image_sha256, found.size) == (None, ImageSize(WIDTH, HEIGHT))


def test_image_that_cannot_be_had_is_not_asked_for_again_at_once_but_later(job: Ingest) -> None:
    path = "/data/upload/7/scene.png"
    assert job.look()(task(), LABELLING) is None
    assert job.look()(task(), LABELLING) is None
    assert job.answers.paths().count(path) == 1
    [key] = job.redis.keys("segzero:image-facts:*")
    assert 0 < job.redis.ttl(key) <= 60
    job.redis.delete(key)  # that time is over
    job.answers.replies[path] = png()
    assert job.look()(task(), LABELLING) == ImageFacts(
        ImageSize(WIDTH, HEIGHT), hashlib.sha256(png()).hexdigest()
    )
    assert job.redis.ttl(key) > 3600


def test_damaged_memory_of_an_image_is_no_obstacle(job: Ingest) -> None:
    job.look()(task(), LABELLING)
    [key] = job.redis.keys("segzero:image-facts:*")
    for damaged in (b"[1, 2]", b"{", b'[0, 0, "x"]', b'[true, "a", null]'):
        job.redis.set(key, damaged)
        assert job.look()(task(), LABELLING) is None


def test_mask_of_another_size_than_the_image_is_refused(job: Ingest) -> None:
    job.answers.replies["/data/upload/7/scene.png"] = png(WIDTH + 1, HEIGHT)
    with pytest.raises(MaskError):
        job.event(saved(1))
    assert job.stored(1) is None


def test_skipped_annotation_is_withdrawn_until_it_is_submitted_again(job: Ingest) -> None:
    job.event(saved(1, 0))
    job.event(saved(1, 1, was_cancelled=True))
    assert job.stored(1) is None
    assert job.event(saved(1, 2)) == ["updated"]
    assert job.stored(1) is not None


def test_older_revision_does_not_replace_a_newer_one(job: Ingest) -> None:
    events = [saved(1, revision) for revision in range(3)]
    assert [job.event(events[n])[0] for n in (1, 0, 2, 2, 1)] == [
        "created",
        "stale",
        "updated",
        "same",
        "stale",
    ]


def test_annotation_too_large_for_the_queue_is_read_from_label_studio(job: Ingest) -> None:
    event = saved(1, of_task=31)
    whole = {
        **task(),
        "annotations": [saved(2, of_task=31)["annotation"], event["annotation"]],
        "predictions": [],
    }
    job.answers.replies["/api/tasks/"] = {"tasks": [whole], "total": 1}
    job.answers.replies["/api/projects/7/"] = project()
    assert job(SavedElsewhere(PROJECT, 31, 1)) == "created"
    assert job.stored(1) is not None
    assert job.stored(2) is None


@pytest.mark.parametrize("of_task", [31, 32])
def test_annotation_that_is_gone_when_it_is_looked_up_is_left_to_others(
    job: Ingest, of_task: int
) -> None:
    whole = {**task(), "id": of_task, "annotations": [], "predictions": []}
    job.answers.replies["/api/tasks/"] = {"tasks": [whole], "total": 1}
    assert job(SavedElsewhere(PROJECT, 31, 1)) == "gone"
    assert job.event(saved(1)) == ["created"]


def test_what_must_be_looked_up_needs_a_label_studio(redis: Redis) -> None:
    job = Ingest(redis, load_settings())
    with pytest.raises(ConfigError, match="SEGZERO_LABEL_STUDIO_TOKEN"):
        job(SavedElsewhere(PROJECT, 31, 1))


def test_config_that_the_event_lacks_is_asked_for(job: Ingest) -> None:
    job.answers.replies["/api/projects/7/"] = project()
    event = saved(1)
    [change] = told({**event, "project": {"id": PROJECT}})
    assert isinstance(change, Saved)
    assert change.label_config is None
    assert job(change) == "created"


def test_projects_that_label_something_else_are_none_of_ours(job: Ingest) -> None:
    config = '<View><Text name="t" value="$t"/><Choices name="c" toName="t"/></View>'
    event = saved(1)
    event["project"]["label_config"] = config
    assert job.event(event) == ["not a project of this backend"]
    assert job.store.projects() == ()


def test_deleted_annotations_and_tasks_are_gone_for_good(job: Ingest) -> None:
    for number in (1, 2, 3, 4):
        job.event(saved(number, of_task=30 + number))
    assert job.event(deleted(1, 2)) == ["removed"]
    assert job.event(tasks_deleted(33)) == ["removed"]
    for number in (1, 2, 3):
        assert job.event(saved(number, 5, of_task=30 + number)) == ["deleted"]
    assert [job.stored(number) is None for number in (1, 2, 3, 4)] == [True, True, True, False]


def test_deletion_before_the_creation_wins(job: Ingest) -> None:
    job.event(deleted(1))
    job.event(tasks_deleted(1002))
    assert job.event(saved(1)) == ["deleted"]
    assert job.event(saved(2)) == ["deleted"]


def test_tasks_deleted_without_a_project_are_gone_from_all_of_this_label_studio(
    job: Ingest,
) -> None:
    for project_id in (7, 8):
        event = saved(project_id, of_task=100 + project_id, project=project_id)
        job.event({**event, "project": project(project_id)})
    other = Ingest(job.redis, load_settings(label_studio_name="other"))
    other.event(saved(9, of_task=108))
    job.event(tasks_deleted(107, 108, with_project=False))
    assert job.stored(7) is None
    assert job.store.get(ProjectKey("label-studio", 8).annotation(8)) is None
    assert job.store.get(ProjectKey("other", 7).annotation(9)) is not None


def test_start_training_is_remembered_with_its_time(job: Ingest) -> None:
    assert job(TrainingAsked(PROJECT, "2026-03-04T12:00:00+00:00")) == "noted"
    found = job.store.watermark(KEY, START_TRAINING)
    assert found == datetime(2026, 3, 4, 12, tzinfo=UTC)


def test_job_reads_its_settings_from_the_environment(
    server: EmbeddedServer, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_REDIS_URL", server.url)
    monkeypatch.setenv("SEGZERO_LABEL_STUDIO_NAME", "here")
    texts = [pack(told(saved(number))[0]) for number in (1, 2)]
    assert run([*texts, texts[0]]) == {"created": 2, "same": 1}
    assert CorrectionStore(redis).projects() == (ProjectKey("here", PROJECT),)


def test_redis_that_is_away_is_a_reason_to_try_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gone = tmp_path_factory.mktemp("gone") / "redis.sock"
    monkeypatch.setenv("SEGZERO_REDIS_URL", f"unix://{gone}")
    with pytest.raises(StoreError):
        run([pack(told(saved(1, result=[brush(RING)]))[0])])
