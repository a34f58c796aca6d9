"""From a model's predictions to what Label Studio stores and shows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backend import outputs
from backend.controls import Kind, Shape, Verdict
from backend.labelling import Labelling
from segzero_ml import masks
from segzero_ml.types import Box, ImageSize, Prediction, Rle

NOTHING_FOUND = "Nothing in the picture matches."
"""The note of a prediction that found nothing and gave no reason."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A prediction and the label that its masks get; empty where the config has no labels."""

    prediction: Prediction
    label: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One object as regions show it.

    Args:
        id: Id of its first region; those of the others follow from it.
        label: Its label.
        rle: Its mask, with at least one pixel.
        score: In [0, 1].
        request: What was asked; empty where it was only clicked at.
        note: The model's reasons; may be empty.
        model_version: The version that answered.
        is_clicked: Whether clicks or a box had a part in its mask.
    """

    id: str
    label: str
    rle: Rle
    score: float
    request: str
    note: str
    model_version: str
    is_clicked: bool = False


def new_region_id() -> str:
    """An id that no other region of an annotation has."""
    return uuid.uuid4().hex[:10]


def to_task_result(
    answers: Sequence[Labelled],
    labelling: Labelling,
    make_id: Callable[[], str] = new_region_id,
    shown: Sequence[Shown] | None = None,
) -> dict[str, Any]:
    """One Label Studio prediction from the answers to all requests of a task.

    Each segment becomes a region of every control that has its label, with its score and the
    model's note; the notes together go into the notes TextArea, and the Choices say whether
    anything was found, if the config has them; both keep what was asked. Without segments the
    result says that nothing was found.

    Args:
        answers: At least one.
        labelling: The project's labelling config.
        make_id: Gives each object its id.
        shown: The answers' objects, where they are known already.

    Returns:
        `{"model_version", "score", "result"}`; the score is the mean of the answers'.

    Raises:
        MaskError: A mask is malformed.
    """
    predictions = [answer.prediction for answer in answers]
    size = predictions[0].size
    result: list[dict[str, Any]] = []
    if shown is None:
        shown = [one for answer in answers for one in objects(answer, make_id)]
    for one in shown:
        result += to_regions(one, labelling)
    notes = _notes(predictions)
    # Without this an answer that found nothing would not say what it was asked.
    asked = {"meta": {"requests": [one.request for one in predictions]}}
    if labelling.notes is not None and notes:
        result.append(_text(labelling.notes, notes, size, labelling, make_id()) | asked)
    if labelling.verdict is not None:
        chosen = _chosen(answers, labelling.verdict)
        if chosen:
            result.append(
                _image_level(labelling.verdict.name, "choices", size, labelling, make_id())
                | {"value": {"choices": chosen}, **asked}
            )
    return {
        "model_version": predictions[0].model_version,
        "score": _unit(sum(one.score for one in predictions) / len(predictions)),
        "result": result,
    }


def objects(answer: Labelled, make_id: Callable[[], str] = new_region_id) -> tuple[Shown, ...]:
    """The objects of an answer, as they are to be shown."""
    prediction = answer.prediction
    return tuple(
        Shown(
            id=make_id(),
            label=answer.label,
            rle=segment.rle,
            score=segment.score,
            request=prediction.request,
            note=prediction.reasoning,
            model_version=prediction.model_version,
        )
        for segment in prediction.segments
    )


def to_regions(shown: Shown, labelling: Labelling) -> list[dict[str, Any]]:
    """The regions of one object: one of every control that has its label.

    Their ids follow from the object's and the control's name alone: a region of the same id
    takes the place of the one that the editor shows, and nothing else ever removes one.

    Raises:
        MaskError: The mask is malformed.
    """
    mask = masks.decode(shown.rle)
    if not mask.any():
        return []
    size = ImageSize(shown.rle.width, shown.rle.height)
    box = masks.bounding_box_px(mask)
    result: list[dict[str, Any]] = []
    for shape in labelling.outputs:
        if not shape.has(shown.label):
            continue
        region_id = f"{shown.id}-{shape.name}" if result else shown.id
        value = outputs.value(shape.kind, mask)
        common = {
            "id": region_id,
            "to_name": labelling.image,
            # The editor turns it into "prediction-changed" when the annotator changes it.
            "origin": "prediction",
            **_geometry(size),
            "meta": _meta(shown, box, is_first=region_id == shown.id),
        }
        result.append(_region(common, shape, value, shown))
        if labelling.region_notes is not None and shown.note:
            result.append(_region_note(common, labelling.region_notes, shape.kind, value, shown))
    return result


def empty_result(model_version: str) -> dict[str, Any]:
    """A prediction with nothing in it, for the interactive calls that expect an object."""
    return {"model_version": model_version, "score": 0.0, "result": []}


def _region(
    common: dict[str, Any], shape: Shape, value: dict[str, Any], shown: Shown
) -> dict[str, Any]:
    kind = f"{shape.kind.value}labels"
    return {
        **common,
        "from_name": shape.name,
        "type": kind,
        "score": _unit(shown.score),
        "value": {**value, kind: [shown.label]},
    }


def _region_note(
    common: dict[str, Any], name: str, kind: Kind, value: dict[str, Any], shown: Shown
) -> dict[str, Any]:
    # Masks are long, and the region that they belong to has them.
    place = {} if kind in (Kind.BRUSH, Kind.BITMASK) else value
    text = {**place, "text": [shown.note]}
    return {**common, "from_name": name, "type": "textarea", "value": text}


def _meta(shown: Shown, box: Box | None, *, is_first: bool) -> dict[str, Any]:
    """What travels with a region through the editor, for `backend.regions` to read again.

    The details panel shows `text`; the rest tells what was asked, who answered, whether the
    annotator clicked, where the object is in pixels, and which regions show the same one, even
    of a region that the annotator asked for while working, which no stored prediction has.
    """
    meta: dict[str, Any] = {"model_version": shown.model_version}
    if shown.request:
        meta["request"] = shown.request
    if shown.is_clicked:
        meta["clicked"] = True
    if not is_first:
        meta["object"] = shown.id
    if box is not None:
        meta["box"] = [int(value) for value in box.as_tuple()]
    return {"text": [shown.note], **meta} if shown.note else meta


def _chosen(answers: Sequence[Labelled], verdict: Verdict) -> list[str]:
    """The choices that say what was found."""
    found = {answer.label for answer in answers if answer.prediction.segments}
    if verdict.present is not None:
        chosen = [verdict.present if found else verdict.absent]
    else:
        chosen = [choice for label, choice in verdict.by_label.items() if label in found]
        chosen = chosen or [verdict.absent]
    named = list(dict.fromkeys(choice for choice in chosen if choice is not None))
    return named if verdict.is_multiple else named[:1]


def _text(
    name: str, lines: list[str], size: ImageSize, labelling: Labelling, region_id: str
) -> dict[str, Any]:
    region = _image_level(name, "textarea", size, labelling, region_id)
    return region | {"value": {"text": lines}}


def _image_level(
    name: str, kind: str, size: ImageSize, labelling: Labelling, region_id: str
) -> dict[str, Any]:
    return {
        "id": region_id,
        "from_name": name,
        "to_name": labelling.image,
        "type": kind,
        **_geometry(size),
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
