"""The endpoints as Label Studio uses them, over HTTP, with the bundled models."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface.interface import LabelInterface as _LabelInterface

from backend.app import create_app
from backend.known_version import version_ahead
from backend.settings import load_settings
from backend.templates import labelling_config
from segzero_ml.errors import WeightsError
from segzero_ml.masks import decode, iou, union
from segzero_ml.pipeline import Pipeline
from segzero_ml.presets import get_preset
from segzero_ml.tiny.scenes import Scene
from segzero_ml.types import BoolMask
from tests.backend.serving import CONFIG, Running, Serve, Watched, naming, task

LabelInterface: Any = _LabelInterface  # its methods are without types


def mask_of(prediction: dict[str, Any], scene: Scene) -> BoolMask:
    """The union of a prediction's brush regions, as Label Studio's decoder reads them."""
    shape = (scene.size.height, scene.size.width, 4)
    regions = [item for item in prediction["result"] if item["type"] == "brushlabels"]
    decoded = [decode_rle(item["value"]["rle"]).reshape(shape)[:, :, 3] > 127 for item in regions]
    return union([np.asarray(mask, dtype=np.bool_) for mask in decoded], scene.size)


def texts_of(prediction: dict[str, Any]) -> list[str]:
    texts = [item["value"]["text"] for item in prediction["result"] if item["type"] == "textarea"]
    return [line for text in texts for line in text]


def test_requests_of_tasks_become_masks_with_notes(
    running: Running, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    request = "the leftmost shape"
    results = running.predict(*(task(n, request=request) for n in range(len(scenes))))
    interface = LabelInterface(CONFIG)
    for prediction in results:
        assert interface.validate_prediction(prediction, return_errors=True) == []
        assert prediction["model_version"] == tiny_pipeline.model_version
        assert 0 <= prediction["score"] <= 1
        assert texts_of(prediction)
        assert all(texts_of(prediction))
    alone = tiny_pipeline.predict([scene.image for scene in scenes], [request] * len(scenes))
    for prediction, scene, own in zip(results, scenes, alone, strict=True):
        cut = union([decode(one.rle) for one in own.segments], own.size)
        assert cut.any()
        assert iou(mask_of(prediction, scene), cut) > 0.98


def test_each_label_is_a_request_where_there_is_none(running: Running, scenes: list[Scene]) -> None:
    names = tuple(naming(scenes[0], index) for index in range(2))
    (prediction,) = running.predict(task(0), config=labelling_config(names, None))
    notes = texts_of(prediction)
    assert [note.partition(":")[0] for note in notes] == list(names)
    regions = [item for item in prediction["result"] if item["type"] == "brushlabels"]
    assert {label for item in regions for label in item["value"]["brushlabels"]} <= set(names)
    assert LabelInterface(labelling_config(names)).validate_prediction(prediction)


def test_request_typed_by_the_annotator_goes_before_the_one_of_the_task(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    pipeline = Watched(tiny_pipeline)
    with serve(lambda: pipeline) as running:
        (prediction,) = running.predict(
            task(0, request=naming(scenes[0])), typed=["older", naming(scenes[0], 1)]
        )
    assert pipeline.batches == [[naming(scenes[0], 1)]]
    assert texts_of(prediction)


def test_interactive_call_without_anything_typed_changes_nothing(
    running: Running, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    results = running.predict(task(0, request=naming(scenes[0])), typed=[" "])
    assert results == [{"model_version": tiny_pipeline.model_version, "score": 0.0, "result": []}]


def test_a_typed_request_that_fails_is_told_why(running: Running) -> None:
    (result,) = running.predict({"data": {"image": "/data/upload/no.jpg"}}, typed=["the star"])
    [why] = texts_of(result)
    assert "/data/upload/no.jpg" in why
    assert LabelInterface(CONFIG).validate_prediction(result)


def test_a_typed_request_that_is_not_answered_in_time_is_told_so(
    serve: Serve, tiny_pipeline: Pipeline
) -> None:
    go = threading.Event()
    pipeline = Watched(tiny_pipeline, lambda _: go.wait(60))
    with serve(lambda: pipeline, predict_deadline_s=2) as running:
        running.wait_until_ready()
        (result,) = running.predict(task(0), typed=["the star"])
        go.set()
    assert texts_of(result) == ["The answer was not ready in time. Ask again in a moment."]


def test_a_request_typed_while_the_model_loads_is_told_so(
    serve: Serve, tiny_pipeline: Pipeline
) -> None:
    go = threading.Event()

    def load() -> Pipeline:
        go.wait(60)
        return tiny_pipeline

    with serve(load, load_wait_s=0.2) as running:
        (result,) = running.predict(task(0), typed=["the star"])
        go.set()
    assert texts_of(result) == ["The model is still loading."]


def test_health_and_setup_answer_at_once_while_the_model_loads(
    serve: Serve, tiny_pipeline: Pipeline
) -> None:
    go = threading.Event()
    loaded = threading.Event()

    def load() -> Pipeline:
        go.wait(60)
        loaded.set()
        return tiny_pipeline

    with serve(load, load_wait_s=0.2) as running:
        assert running.get("/health").json()["model"] == "loading"
        setup = running.post("/setup", {"schema": CONFIG, "project": "1.1"})
        assert not loaded.is_set()
        assert setup.json() == {"model_version": "tiny (loading)"}
        assert running.get("/versions").json() == {"versions": []}
        ready = running.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "loading")
        late = running.post("/predict", {"tasks": [], "label_config": CONFIG})
        assert late.status_code == 503
        assert int(late.headers["Retry-After"]) > 0
        go.set()
        running.wait_until_ready()
        version = tiny_pipeline.model_version
        assert running.get("/ready").json() == {"status": "ready", "model_version": version}
        assert running.post("/setup", {"schema": CONFIG}).json() == {"model_version": version}
        assert running.get("/versions").json() == {"versions": [version]}


def test_setup_tells_the_version_that_is_being_loaded_as_soon_as_it_is_known(
    tiny_pipeline: Pipeline,
) -> None:
    go = threading.Event()

    def load() -> Pipeline:
        go.wait(60)
        return tiny_pipeline

    app = create_app(
        load_settings(),
        load_pipeline=load,
        expect_version=lambda: version_ahead(get_preset("tiny")),
    )
    with TestClient(app, base_url="http://localhost") as client:
        until = time.monotonic() + 60
        while "loading" in (version := client.post("/setup", json={}).json()["model_version"]):
            assert time.monotonic() < until
        assert client.get("/health").json()["model"] == "loading"
        assert client.get("/versions").json() == {"versions": []}
        go.set()
    assert version == tiny_pipeline.model_version


def test_predict_waits_for_a_model_that_is_about_to_be_loaded(
    serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline
) -> None:
    def load() -> Pipeline:
        time.sleep(0.5)
        return tiny_pipeline

    with serve(load) as running:
        (prediction,) = running.predict(task(0, request=naming(scenes[0])))
    assert prediction["result"]


def test_model_that_cannot_be_loaded_is_told_by_ready_and_predict(serve: Serve) -> None:
    def load() -> Pipeline:
        raise WeightsError("The weights are damaged.", "Install the package again.")

    with serve(load) as running:
        until = time.monotonic() + 60
        while running.get("/health").json()["model"] == "loading":
            assert time.monotonic() < until
        assert running.get("/health").status_code == 200
        ready = running.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "failed")
        assert "Install the package again." in ready.json()["detail"]
        reply = running.post("/predict", {"tasks": [], "label_config": CONFIG})
        assert reply.status_code == 503
        assert "The weights are damaged." in reply.json()["detail"]


def test_setup_refuses_a_config_without_a_control_and_shows_one_that_works(
    running: Running,
) -> None:
    reply = running.post("/setup", {"schema": '<View><Image name="i" value="$i"/></View>'})
    assert reply.status_code == 422
    assert "no BrushLabels" in reply.json()["detail"]
    assert labelling_config() in reply.json()["detail"]


@pytest.mark.parametrize("schema", ["", "<View></View>", None])
def test_setup_accepts_a_project_whose_config_is_not_set_yet(
    running: Running, schema: str | None
) -> None:
    assert running.post("/setup", {"schema": schema}).status_code == 200


def test_webhook_is_counted_by_its_action(serve: Serve) -> None:
    with serve() as running:
        for action in ("ANNOTATION_CREATED", "ANNOTATION_CREATED", "MADE_UP"):
            reply = running.post("/webhook", {"action": action, "annotation": {"id": 1}})
            assert reply.status_code == 200
            assert reply.json() == {"status": "ignored" if action == "MADE_UP" else "accepted"}
        metrics = running.get("/metrics").text
    assert 'segzero_webhook_events_total{action="ANNOTATION_CREATED"} 2.0' in metrics
    assert 'segzero_webhook_events_total{action="other"} 1.0' in metrics
    assert "MADE_UP" not in metrics


def test_metrics_tell_tasks_calls_and_state(serve: Serve, scenes: list[Scene]) -> None:
    with serve() as running:
        running.predict(task(0, request=naming(scenes[0])), {"id": 2})
        running.get("/no/such/path")
        reply = running.get("/metrics")
        until = time.monotonic() + 60
        # The model's thread takes note that it is done a moment after the answer is out.
        while "segzero_queue_requests 0.0" not in reply.text and time.monotonic() < until:
            reply = running.get("/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain")
    for line in (
        'segzero_predict_tasks_total{outcome="ok"} 1.0',
        'segzero_predict_tasks_total{outcome="failed"} 1.0',
        'segzero_predict_tasks_total{outcome="late"} 0.0',
        'segzero_http_requests_total{path="/predict",status="200"} 1.0',
        'segzero_http_requests_total{path="other",status="404"} 1.0',
        "segzero_predict_seconds_count 1.0",
        "segzero_model_ready 1.0",
        "segzero_queue_requests 0.0",
    ):
        assert line in reply.text
    assert "segzero_model_seconds_count 1.0" in reply.text


def test_address_without_a_path_answers_like_health(running: Running) -> None:
    assert running.get("/").json() == running.get("/health").json()
