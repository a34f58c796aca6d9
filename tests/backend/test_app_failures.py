"""What goes wrong with one task stays with that task, and the log says what it was."""

from __future__ import annotations

import json
import logging
import struct
import time
import zlib
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from segzero_ml.pipeline import Pipeline
from segzero_ml.tiny.scenes import Scene
from tests.backend.serving import Running, Serve, StudioFiles, Watched, naming, predict_body, task


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds no picture of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def reasons(caplog: pytest.LogCaptureFixture) -> list[tuple[int | None, str]]:
    """The task and the reason of each failure in the log."""
    fields: list[dict[str, Any]] = [getattr(record, "fields", {}) for record in caplog.records]
    return [(one.get("task"), str(one["reason"])) for one in fields if "reason" in one]


def broken_task(number: int, **data: object) -> dict[str, Any]:
    return {"id": number, "data": data}


UPLOAD = "/data/upload"
BROKEN: tuple[tuple[Any, str], ...] = (
    (broken_task(101, image=f"{UPLOAD}/99.jpg", request="the star"), "answered 404"),
    (broken_task(102, image="http://files.invalid/a.png"), "no host files.invalid"),
    (broken_task(103, image=f"{UPLOAD}/text.jpg"), "not an image"),
    (broken_task(104, image=f"{UPLOAD}/huge.png"), "50,000,000 pixels"),
    (broken_task(105, image="http://127.0.0.1/a.png"), "private network"),
    (broken_task(106, image="s3://bucket/a.png"), "/tasks/106/resolve/ answered 404"),
    (broken_task(107, image="file:///etc/passwd"), "must be a file in Label Studio"),
    (broken_task(108), "image field is missing"),
    (broken_task(109, image=f"{UPLOAD}/0.jpg", request=""), "request is empty"),
    (
        broken_task(110, image=f"{UPLOAD}/0.jpg", request="x" * 10_000),
        "10000 characters long; the limit is 2000",
    ),
    (broken_task(111, image=f"{UPLOAD}/0.jpg", request=7), "as text"),
    ({"id": 112}, "data: Field required"),
    ("not a task", "not what this call takes"),
    (None, "not what this call takes"),
)


def test_tasks_that_fail_are_skipped_with_a_reason_and_the_others_are_answered(
    running: Running,
    files: StudioFiles,
    scenes: list[Scene],
    caplog: pytest.LogCaptureFixture,
) -> None:
    files.files["/data/upload/text.jpg"] = b"<html>not a picture</html>"
    files.files["/data/upload/huge.png"] = png_header(20_000, 10_000)
    good = task(1, request=naming(scenes[1]))
    with caplog.at_level(logging.INFO):
        first, *skipped, last = running.predict(good, *[broken for broken, _ in BROKEN], good)
    assert skipped == [[]] * len(BROKEN)
    assert first["result"]
    assert last["result"]
    told = reasons(caplog)
    assert len(told) == len(BROKEN)
    for broken, expected in BROKEN:
        number = broken["id"] if isinstance(broken, dict) else None
        of_task = [reason for task_id, reason in told if task_id == number]
        assert len(of_task) == (2 if number is None else 1), told
        assert all(expected in reason for reason in of_task), told


def test_half_a_character_in_a_request_fails_neither_its_task_nor_the_others(
    running: Running, scenes: list[Scene]
) -> None:
    asked = [f"{naming(scenes[0])} \ud83d", naming(scenes[1])]
    body = predict_body(*(task(n, request=text) for n, text in enumerate(asked)))
    reply = running.client.post(
        "/predict", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 200, reply.text
    assert all(one["result"] for one in reply.json()["results"])


def test_config_that_can_show_no_prediction_skips_every_task_and_says_why(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    config = '<View><Image name="image" value="$image"/></View>'
    with caplog.at_level(logging.INFO):
        assert running.predict(task(0), task(1), config=config) == [[], []]
    assert any("predictions cannot be shown" in text for _, text in reasons(caplog))


def test_request_that_breaks_the_model_does_not_break_its_batch(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    def before(requests: Sequence[str]) -> None:
        if "the poison" in requests:
            raise RuntimeError("device-side assert")

    pipeline = Watched(tiny_pipeline, before)
    tasks = [task(0, request=naming(scenes[0])) for _ in range(3)]
    with serve(lambda: pipeline) as running:
        results = running.predict(*tasks, task(0, request="the poison"), *tasks)
        assert running.predict(*tasks)[0]["result"]  # the thread lives on
    assert [bool(result) for result in results] == [True] * 3 + [False] + [True] * 3


def test_logs_and_replies_hold_no_secret(
    serve: Serve, files: StudioFiles, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = ("legacy-token-1", "pass-word-1", "hook-secret-1", "setup-token-1", "sig-1")
    broken = {"id": 1, "data": {"image": "/data/upload/none.jpg?signature=sig-1"}}
    with (
        caplog.at_level(logging.DEBUG),
        serve(
            label_studio_token="legacy-token-1",
            user="ada",
            password="pass-word-1",
            webhook_secret="hook-secret-1",
        ) as running,
    ):
        running.client.auth = httpx.BasicAuth("ada", "pass-word-1")
        running.post("/setup", {"schema": "", "access_token": "setup-token-1"})
        running.predict(broken)
        shown = running.get("/metrics").text
    assert any("Authorization" in request.headers for request in files.requests)
    ours = [
        record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    ]
    logged = " ".join(f"{record.getMessage()} {vars(record)}" for record in ours)
    assert "predict.task_failed" in logged
    assert not [secret for secret in secrets if secret in logged + shown]


def test_token_is_never_sent_where_setup_says(serve: Serve, files: StudioFiles) -> None:
    files.requests.clear()
    with serve(label_studio_token="legacy-token-1") as running:
        running.post(
            "/setup", {"schema": "", "hostname": "http://evil:80", "access_token": "other"}
        )
        running.predict(task(99))
    assert {request.url.host for request in files.requests} == {"ls"}
    assert {request.headers["Authorization"] for request in files.requests} == {
        "Token legacy-token-1"
    }


def test_damaged_images_cost_little_time(running: Running, files: StudioFiles) -> None:
    files.files["/data/upload/huge.png"] = png_header(60_000, 60_000)
    tasks = [{"id": n, "data": {"image": "/data/upload/huge.png"}} for n in range(50)]
    started = time.monotonic()
    assert running.predict(*tasks) == [[]] * 50
    assert time.monotonic() - started < 60
