"""From predictions to the results that Label Studio stores and shows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backend.brush import encode_rle
from backend.labelling import Labelling
from segzero_ml import masks
from segzero_ml.types import ImageSize, Prediction, Segment

NOTHING_FOUND = "Nothing in the picture matches."
"""The note of a prediction that found nothing and gave no reason."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A prediction and the label that its masks get."""

    prediction: Prediction
    label: str


def new_region_id() -> str:
    """An id that no other region of an annotation has."""
    return uuid.uuid4().hex[:10]


def to_task_result(
    answers: Sequence[Labelled],
    labelling: Labelling,
    make_id: Callable[[], str] = new_region_id,
) -> dict[str, Any]:
    """One Label Studio prediction from the answers to all requests of a task.

    Each segment becomes a brush region with its score and the model's note; the notes
    together go into the notes TextArea, if the config has one. Without segments the result
    says that nothing was found.

    Args:
        answers: At least one.
        labelling: The project's labelling config.
        make_id: Gives each region its id.

    Returns:
        `{"model_version", "score", "result"}`; the score is the mean of the answers'.

    Raises:
        MaskError: A mask is malformed.
    """
    predictions = [answer.prediction for answer in answers]
    result = [
        _brush_region(segment, answer, labelling, make_id())
        for answer in answers
        for segment in answer.prediction.segments
    ]
    notes = _notes(predictions)
    if labelling.notes is not None and notes:
        result.append(_notes_region(notes, predictions[0].size, labelling, make_id()))
    return {
        "model_version": predictions[0].model_version,
        "score": _unit(sum(one.score for one in predictions) / len(predictions)),
        "result": result,
    }


def empty_result(model_version: str) -> dict[str, Any]:
    """A prediction with nothing in it, for the interactive calls that expect an object."""
    return {"model_version": model_version, "score": 0.0, "result": []}


def _brush_region(
    segment: Segment, answer: Labelled, labelling: Labelling, region_id: str
) -> dict[str, Any]:
    return {
        "id": region_id,
        "from_name": labelling.brush,
        "to_name": labelling.image,
        "type": "brushlabels",
        # The editor turns it into "prediction-changed" when the annotator changes the mask.
        "origin": "prediction",
        **_geometry(answer.prediction.size),
        "score": _unit(segment.score),
        "value": {
            "format": "rle",
            "rle": encode_rle(masks.decode(segment.rle)),
            "brushlabels": [answer.label],
        },
        "meta": _meta(answer.prediction),
    }


def _meta(prediction: Prediction) -> dict[str, Any]:
    """What travels with a region through the editor, for `backend.regions` to read again.

    The details panel shows `text`; the rest tells what was asked and who answered, even of a
    region that the annotator asked for while working, which no stored prediction has.
    """
    meta: dict[str, Any] = {
        "request": prediction.request,
        "model_version": prediction.model_version,
    }
    return {"text": [prediction.reasoning], **meta} if prediction.reasoning else meta


def _notes_region(
    notes: list[str], size: ImageSize, labelling: Labelling, region_id: str
) -> dict[str, Any]:
    return {
        "id": region_id,
        "from_name": labelling.notes,
        "to_name": labelling.image,
        "type": "textarea",
        **_geometry(size),
        "value": {"text": notes},
    }


def _notes(predictions: Sequence[Prediction]) -> list[str]:
    """The reasons, with the request in front of each where there are several requests."""
    notes = []
    for prediction in predictions:
        note = prediction.reasoning
        if not note and not prediction.segments:
            note = NOTHING_FOUND
        if note:
            notes.append(note if len(predictions) == 1 else f"{prediction.request}: {note}")
    return notes


def _geometry(size: ImageSize) -> dict[str, int]:
    return {"original_width": size.width, "original_height": size.height, "image_rotation": 0}


def _unit(score: float) -> float:
    """Label Studio takes scores from 0 to 1; digits beyond the sixth mean nothing."""
    return round(min(1.0, max(0.0, score)), 6)
