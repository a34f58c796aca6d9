"""From an annotation of Label Studio to a correction, or to the reason why it is none.

An annotation reads the same from a webhook and from the API. Nothing here touches the
network: whoever calls fetches the task and its predictions.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from backend.answered import answered
from backend.labelling import Labelling
from backend.problems import without_problems
from backend.regions import (
    Region,
    has_other_shapes,
    notes_of,
    read_regions,
    read_results,
    size_of,
    typed_text,
)
from backend.verdicts import judge
from segzero_ml.checks import MAX_NAME_LENGTH, check_id, read_time
from segzero_ml.corrections import (
    MAX_REFERENCE_LENGTH,
    Correction,
    CorrectionKey,
    Revision,
    Verdict,
)
from segzero_ml.errors import InputError
from segzero_ml.reasoner.prompts import check_raw_length
from segzero_ml.types import ImageSize

_log = logging.getLogger(__name__)

_HASHED: Final = ("result", "was_cancelled", "ground_truth", "lead_time")
_MAX_SECONDS: Final = 1e9


class Reason(StrEnum):
    """Why an annotation is no correction."""

    SKIPPED = "The annotator skipped the task, which says nothing about what is true."
    NO_REQUEST = "Nobody asked for anything: the task has no request and none was typed."
    NO_MASK = "It holds no masks but points, lines or boxes, which show an object without its mask."


@dataclass(frozen=True, slots=True)
class Identity:
    """Which annotation, in which state, of which task."""

    key: CorrectionKey
    revision: Revision
    task: int


@dataclass(frozen=True, slots=True)
class NoCorrection:
    """An annotation that teaches nothing in this state; an earlier state of it is void."""

    identity: Identity
    reason: Reason


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of a task's image once it was fetched: its upright size, its file's hash."""

    size: ImageSize
    sha256: str


def identify(annotation: Mapping[str, Any], task: Mapping[str, Any], label_studio: str) -> Identity:
    """Which annotation this is, and how new.

    The revision's hash is over what the annotator can change: the result, whether it was
    skipped, whether it is ground truth, and the lead time. What Label Studio itself clears
    later, such as the link to a prediction that was deleted, makes no new revision.

    Args:
        annotation: As in a webhook or from the API.
        task: The same; its `id` and `project` stand in where the annotation lacks them.
        label_studio: Name of the Label Studio.

    Raises:
        InputError: An id or the time is missing or malformed, the annotation is of another
            task, or the content is no JSON.
    """
    task_id, of_task = check_id("The task's id", task.get("id")), _id(annotation.get("task"))
    if of_task not in (None, task_id):
        raise InputError(f"The annotation belongs to task {of_task}, not to task {task_id}.")
    project = _id(annotation.get("project")) or _id(task.get("project"))
    key = CorrectionKey(
        label_studio,
        check_id("The annotation's project", project),
        check_id("The annotation's id", annotation.get("id")),
    )
    saved = read_time("The annotation's updated_at", annotation.get("updated_at"))
    return Identity(key, Revision(saved, content_hash(annotation)), task_id)


def content_hash(annotation: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of what counts in an annotation; see `identify`.

    Raises:
        InputError: It holds a number that is not finite, or is nested too deeply.
    """
    content = {name: annotation.get(name) for name in _HASHED}
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise InputError("The annotation is no plain JSON.") from None
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def find_prediction(
    annotation: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The prediction that an annotation came from.

    That is the one it names as its parent. Where it names none, or one that is gone, it is
    the one with which it shares most regions, by their ids, which Label Studio keeps; of
    several the newest. The prediction that Label Studio put beside the annotation when it
    was made counts as one of them, so that a deleted one can still be found.

    Args:
        annotation: As in a webhook or from the API.
        predictions: All predictions of the task.
    """
    candidates = [one for one in predictions if _id(one.get("id")) is not None]
    beside = annotation.get("prediction")
    if isinstance(beside, Mapping) and _id(beside.get("id")) is not None:
        candidates.append(beside)
    parent = _id(annotation.get("parent_prediction"))
    for one in candidates:
        if parent is not None and _id(one["id"]) == parent:
            return one
    ids = _region_ids(annotation)
    best = max(
        candidates, key=lambda one: (len(ids & _region_ids(one)), _id(one["id"])), default=None
    )
    return best if best is not None and ids & _region_ids(best) else None


def to_correction(
    annotation: Mapping[str, Any],
    task: Mapping[str, Any],
    prediction: Mapping[str, Any] | None,
    labelling: Labelling,
    label_studio: str,
    *,
    request_fields: Sequence[str] = (),
    image: ImageFacts | None = None,
) -> Correction | NoCorrection:
    """Read an annotation.

    Args:
        annotation: As in a webhook or from the API.
        task: The task with its `id` and `data`.
        prediction: The one it came from, see `find_prediction`; None if there was none. One
            that cannot be read, as an imported one may be, counts as none.
        labelling: The project's labelling config.
        label_studio: Name of the Label Studio, the same for ever.
        request_fields: Field names that mean a request whatever the config shows.
        image: What is known of the image; masks must be of its size.

    Raises:
        InputError: The annotation or the task is not what Label Studio sends.
        MaskError: A region of the annotation is malformed, or not of the image's size.
    """
    identity = identify(annotation, task, label_studio)
    if annotation.get("was_cancelled"):
        return NoCorrection(identity, Reason.SKIPPED)
    results = read_results(annotation.get("result"))
    size = None if image is None else image.size
    drawn = read_regions(results, labelling.image, size, labelling.masked_labels)
    if not drawn and has_other_shapes(results, labelling.image):
        return NoCorrection(identity, Reason.NO_MASK)
    size = size or size_of(drawn)
    came_from = _read_prediction(prediction, labelling, size)
    data = _data(task)
    asked = answered(
        data, labelling, request_fields, came_from.regions, drawn, results, came_from.results
    )
    if not asked.requests:
        return NoCorrection(identity, Reason.NO_REQUEST)
    judgement = judge(came_from.regions, drawn)
    corrected = asked.truth(drawn)
    note_shown, note_edited = _notes(came_from.results, results, judgement.shown, drawn, labelling)
    return Correction(
        key=identity.key,
        revision=identity.revision,
        task=identity.task,
        image=_image_reference(data, labelling),
        image_sha256=None if image is None else image.sha256,
        size=size or size_of(came_from.regions or ()),
        requests=tuple(one.text for one in asked.requests),
        predicted=asked.shown(judgement.shown),
        corrected=corrected,
        note_shown=note_shown,
        note_edited=note_edited,
        verdict=_verdict(judgement.verdict, answers_more=len(corrected) > len(drawn)),
        edit_iou=judgement.edit_iou,
        lead_time_s=_seconds(annotation.get("lead_time")),
        model_version=came_from.model_version
        or next((one.model_version for one in drawn if not one.is_own and one.model_version), None),
        annotator=_id(annotation.get("completed_by")),
        ground_truth=annotation.get("ground_truth") is True,
    )


@dataclass(frozen=True, slots=True)
class _Predicted:
    """What a prediction said; by default there was none."""

    results: Sequence[Mapping[str, Any]] = ()
    regions: tuple[Region, ...] | None = None
    model_version: str | None = None


def _read_prediction(
    prediction: Mapping[str, Any] | None, labelling: Labelling, size: ImageSize | None
) -> _Predicted:
    """Read a prediction; one that cannot be read takes nothing from what was drawn by hand."""
    if prediction is None:
        return _Predicted()
    try:
        results = read_results(prediction.get("result"))
        regions = read_regions(results, labelling.image, size, labelling.masked_labels)
        for one in regions:
            check_raw_length(one.request or "")
    except InputError as error:
        _log.warning(
            "Prediction %s cannot be read and counts as none: %s",
            _id(prediction.get("id")),
            error.message,
        )
        return _Predicted()
    return _Predicted(results, regions, _model_version(prediction))


def _verdict(verdict: Verdict, *, answers_more: bool) -> Verdict:
    """A prediction whose region also answers a request that it was not shown for missed that."""
    return Verdict.EDITED if answers_more and verdict is Verdict.ACCEPTED else verdict


def _notes(
    predicted_results: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    shown: Sequence[Region],
    drawn: Sequence[Region],
    labelling: Labelling,
) -> tuple[str, str]:
    """The note as shown and as submitted: from the notes box, else from the regions' details.

    A mask that is asked for while working brings its own note, which takes the place of the
    one in the box; a note that the model wrote is no edit, and a problem no note.
    """
    first = typed_text(predicted_results, labelling.notes)
    last = without_problems(typed_text(results, labelling.notes))
    if first is None and last is None:
        return notes_of(shown), notes_of(drawn)
    if last and last in {one.note for one in shown} | {notes_of(shown)}:
        first = last
    return first or "", last or ""


def _id(value: object) -> int | None:
    """An id as Label Studio writes it: a number, or an object with the number in it."""
    if isinstance(value, Mapping):
        value = value.get("id")
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return None


def _region_ids(owner: Mapping[str, Any]) -> set[str]:
    results = owner.get("result")
    found = results if isinstance(results, list) else []
    ids = (one.get("id") for one in found if isinstance(one, Mapping))
    return {one for one in ids if isinstance(one, str) and one}


def _data(task: Mapping[str, Any]) -> Mapping[str, Any]:
    data = task.get("data")
    if not isinstance(data, Mapping):
        raise InputError("The task has no data.")
    return data


def _image_reference(data: Mapping[str, Any], labelling: Labelling) -> str:
    """What the task says about its image; an image in the task itself by its hash."""
    value = data.get(labelling.image_field)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f'The field "{labelling.image_field}" of the task holds no image.')
    if value.startswith("data:") or len(value) > MAX_REFERENCE_LENGTH:
        return f"inline:sha256:{hashlib.sha256(value.encode('utf-8', 'replace')).hexdigest()}"
    return value


def _seconds(value: object) -> float | None:
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= _MAX_SECONDS
    ):
        return float(value)
    return None


def _model_version(prediction: Mapping[str, Any]) -> str | None:
    version = prediction.get("model_version")
    if not isinstance(version, str) or not version.strip():
        return None
    return version.encode("utf-8", "replace").decode()[:MAX_NAME_LENGTH]
