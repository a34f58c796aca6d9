"""Label Studio asks for predictions, as its "Retrieve predictions" does, and keeps them."""

from __future__ import annotations

import statistics

import httpx
import numpy as np
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface.interface import LabelInterface

from backend.connect import connect
from backend.demo.tasks import import_samples, note_of, retrieve_all
from backend.label_studio import LabelStudio
from backend.label_studio_models import StoredPrediction
from backend.templates import labelling_config
from segzero_ml import masks
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.types import BoolMask, ImageSize
from tests.e2e.conftest import StartBackend
from tests.e2e.world import Backend, Prepared, Studio


def shown_mask(prediction: StoredPrediction, size: ImageSize) -> BoolMask:
    """What Label Studio's own decoder makes of all brush regions together."""
    shown = np.zeros((size.height, size.width), dtype=bool)
    for region in prediction.result:
        if region["type"] == "brushlabels":
            rgba = decode_rle(region["value"]["rle"])
            alpha = np.reshape(rgba, (region["original_height"], region["original_width"], 4))
            shown |= alpha[..., 3] > 127
    return shown


def test_every_task_has_one_prediction_with_its_reasons(prepared: Prepared) -> None:
    assert len(prepared.tasks) == 20
    for task in prepared.tasks:
        [prediction] = task.predictions
        assert prediction.model_version == prepared.report.model_version
        assert prediction.score is not None
        assert 0 <= prediction.score <= 1
        assert note_of(prediction)


def test_the_masks_match_the_truth(prepared: Prepared) -> None:
    ious = []
    for task, sample in zip(prepared.tasks, prepared.samples, strict=True):
        picture = sample.image()
        size = ImageSize(picture.width, picture.height)
        shown = shown_mask(task.predictions[0], size)
        iou = masks.iou(shown, masks.union(sample.masks, size))
        ious.append((round(iou, 2), sample.kind, sample.request))
    assert statistics.mean(iou for iou, _, _ in ious) >= 0.7, ious


def test_regions_carry_score_and_reasons(prepared: Prepared) -> None:
    regions = [
        region
        for task in prepared.tasks
        for region in task.predictions[0].result
        if region["type"] == "brushlabels"
    ]
    assert regions
    for region in regions:
        assert 0 <= region["score"] <= 1
        assert region["meta"]["text"][0]


def test_label_studios_own_check_accepts_the_predictions(prepared: Prepared) -> None:
    interface = LabelInterface(labelling_config())
    for task in prepared.tasks:
        prediction = task.predictions[0]
        body = {
            "result": prediction.result,
            "score": prediction.score,
            "model_version": prediction.model_version,
        }
        assert interface.validate_prediction(body, return_errors=True) == []


def test_asking_again_adds_nothing(client: LabelStudio, prepared: Prepared) -> None:
    client.retrieve_predictions(prepared.project_id)
    again = client.tasks(prepared.project_id)
    assert [task.predictions for task in again] == [task.predictions for task in prepared.tasks]


def test_a_typed_request_is_answered_in_the_editor(
    studio: Studio, client: LabelStudio, prepared: Prepared
) -> None:
    [row] = client.ml_backends(prepared.project_id)
    typed = {
        "id": "typed",
        "from_name": "request",
        "to_name": "image",
        "type": "textarea",
        "value": {"text": [prepared.samples[0].request]},
    }
    reply = httpx.post(
        f"{studio.url}/api/ml/{row.id}/interactive-annotating",
        headers={"Authorization": f"Token {studio.login.token}"},
        json={"task": prepared.tasks[1].id, "context": {"result": [typed]}},
        timeout=130,
    ).json()
    assert not reply.get("errors")
    assert {item["from_name"] for item in reply["data"]["result"]} <= {"brush", "notes"}
    assert reply["data"]["result"]


def test_a_submitted_correction_remembers_what_was_predicted(
    client: LabelStudio, backend: Backend, prepared: Prepared
) -> None:
    task = prepared.tasks[-1]
    [prediction] = task.predictions
    annotation = client.annotate(task.id, prediction.result, prediction.id)
    assert annotation.parent_prediction == prediction.id
    read_back = client.tasks(prepared.project_id)[-1]
    assert [kept.id for kept in read_back.annotations] == [annotation.id]
    assert backend.child.exit_code is None


def test_pictures_are_read_with_a_personal_access_token(
    studio: Studio, client: LabelStudio, start_backend_with: StartBackend
) -> None:
    token = client.create_personal_token().get_secret_value()
    backend = start_backend_with(token)
    with LabelStudio(studio.url, token) as personal:
        project = personal.create_project("Personal token", labelling_config())
        task_ids = import_samples(personal, project.id, scene_samples(2, 43))
        report = connect(personal, project.id, backend.access)
        retrieve_all(personal, project.id, task_ids, report.model_version)
        assert all(len(task.predictions) == 1 for task in personal.tasks(project.id))
