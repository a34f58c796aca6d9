"""What a person made of a prediction: the training signal, as one frozen, checked value.

A correction belongs to one annotation of one Label Studio. The annotation may be saved
again: its newest `Revision` counts. Several people may annotate one task: all their
corrections are kept, and `choose_target` says which one is learnt from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from segzero_ml import masks
from segzero_ml.errors import InputError
from segzero_ml.types import ImageSize, Rle

FORMAT: Final = 1
"""Version of the JSON form."""

MAX_SEGMENTS: Final = 1000
"""Segments of a correction, predicted and corrected each."""

MAX_REQUESTS: Final = 100
MAX_REQUEST_LENGTH: Final = 10_000
MAX_NOTE_LENGTH: Final = 20_000
MAX_REFERENCE_LENGTH: Final = 8192
MAX_NAME_LENGTH: Final = 500

_MAX_ID: Final = 2**63 - 1
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Verdict(StrEnum):
    """What the annotator made of the prediction; `backend.verdicts` holds the rule."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"
    NOTHING_HERE = "nothing_here"
    DRAWN_BY_HAND = "drawn_by_hand"


@dataclass(frozen=True, slots=True)
class CorrectionKey:
    """Which annotation a correction is of.

    Args:
        label_studio: Which Label Studio: a name that stays the same, such as its address.
        project: Id of the project.
        annotation: Id of the annotation.

    Raises:
        InputError: The name is blank, too long or not printable, or an id is no whole
            number above 0.
    """

    label_studio: str
    project: int
    annotation: int

    def __post_init__(self) -> None:
        _check_text("label_studio", self.label_studio, MAX_NAME_LENGTH, may_be_blank=False)
        if not self.label_studio.isprintable():
            raise InputError("The label_studio of a correction must be printable.")
        _check_id("project", self.project)
        _check_id("annotation", self.annotation)


@dataclass(frozen=True, slots=True, order=True)
class Revision:
    """Which state of an annotation; the greater one is newer.

    Label Studio's clock decides. States with the same time are told apart by their content,
    so that everybody picks the same one.

    Args:
        updated_at: When Label Studio saved the annotation; with a time zone.
        content_hash: SHA-256 of what counts in the annotation, 64 small hexadecimal digits.

    Raises:
        InputError: The time has no zone, or the hash is no SHA-256.
    """

    updated_at: datetime
    content_hash: str

    def __post_init__(self) -> None:
        if not isinstance(self.updated_at, datetime) or self.updated_at.utcoffset() is None:
            raise InputError("The updated_at of a correction must be a time with its zone.")
        _check_sha256("content_hash", self.content_hash)


@dataclass(frozen=True, slots=True)
class LabelledSegment:
    """One object, what it was called, and what was asked when it was found.

    Args:
        rle: Its mask, in the size of the upright original image.
        label: Label of the labelling config; empty where the region has none.
        request: The request it answers: one of the correction's.
    """

    rle: Rle
    label: str
    request: str

    def __post_init__(self) -> None:
        _check_text("label", self.label, MAX_NAME_LENGTH)
        _check_text("request", self.request, MAX_REQUEST_LENGTH, may_be_blank=False)


@dataclass(frozen=True, slots=True)
class Correction:
    """One annotation, set beside the prediction it came from.

    Args:
        key: Which annotation.
        revision: Which state of it.
        task: Id of the task.
        image: The task's reference to its image, as the task has it.
        image_sha256: SHA-256 of the image's file, or None where it is not known.
        size: Size of the upright original image; None only where there is no mask.
        requests: What was asked, at least one; each stands on its own, and one without
            corrected segments has "nothing here" as its true answer.
        predicted: What the model showed.
        corrected: The truth.
        note_shown: The model's reasons as shown; empty where there were none.
        note_edited: The same as submitted.
        verdict: What the annotator made of the prediction.
        edit_iou: IoU of all that was predicted with all that is true, in [0, 1]; None where
            nothing was predicted for the annotator, or where what was shown is not known.
        lead_time_s: Seconds the annotator took, or None.
        model_version: The version that predicted, or None.
        annotator: Id of the user, or None.
        ground_truth: Whether the annotation is marked as the task's ground truth.

    Raises:
        InputError: A value is of the wrong type or out of its range, a segment is of another
            size or answers a request that was not made, or the verdict contradicts the
            segments.
    """

    key: CorrectionKey
    revision: Revision
    task: int
    image: str
    image_sha256: str | None
    size: ImageSize | None
    requests: tuple[str, ...]
    predicted: tuple[LabelledSegment, ...]
    corrected: tuple[LabelledSegment, ...]
    note_shown: str
    note_edited: str
    verdict: Verdict
    edit_iou: float | None
    lead_time_s: float | None
    model_version: str | None
    annotator: int | None
    ground_truth: bool = False

    def __post_init__(self) -> None:
        _check_id("task", self.task)
        _check_text("image", self.image, MAX_REFERENCE_LENGTH, may_be_blank=False)
        if self.image_sha256 is not None:
            _check_sha256("image_sha256", self.image_sha256)
        _check_requests(self.requests)
        for what, segments in (("predicted", self.predicted), ("corrected", self.corrected)):
            _check_segments(what, segments, self.size, self.requests)
        _check_text("note_shown", self.note_shown, MAX_NOTE_LENGTH)
        _check_text("note_edited", self.note_edited, MAX_NOTE_LENGTH)
        _check_verdict(self.verdict, self.predicted, self.corrected)
        _check_number("edit_iou", self.edit_iou, 1.0)
        _check_number("lead_time_s", self.lead_time_s, math.inf)
        if self.model_version is not None:
            _check_text("model_version", self.model_version, MAX_NAME_LENGTH, may_be_blank=False)
        if self.annotator is not None:
            _check_id("annotator", self.annotator)
        if not isinstance(self.ground_truth, bool):
            raise InputError("The ground_truth of a correction must be true or false.")

    @property
    def request(self) -> str:
        """What was asked, in one text for people to read."""
        return "; ".join(self.requests)

    def truth(self, request: str) -> tuple[Rle, ...]:
        """True masks of one of the requests; without any, nothing here matches it."""
        return tuple(one.rle for one in self.corrected if one.request == request)


def choose_target(corrections: Iterable[Correction]) -> Correction | None:
    """The correction of a task to learn from, where several people annotated it.

    One that is marked as ground truth goes before all others. Among equals the one that was
    saved last, by Label Studio's clock; of those saved at the same moment the one with the
    highest annotation id. The order in which they are given makes no difference.

    Args:
        corrections: Of one task, each annotation once, in its newest revision.

    Returns:
        One of them, or None where there is none.

    Raises:
        InputError: They are not of one task.
    """
    found = list(corrections)
    if len({(one.key.label_studio, one.key.project, one.task) for one in found}) > 1:
        raise InputError("A target can only be chosen among the corrections of one task.")
    return max(
        found,
        key=lambda one: (one.ground_truth, one.revision.updated_at, one.key.annotation),
        default=None,
    )


def to_json(correction: Correction) -> dict[str, Any]:
    """The JSON form, made of dicts, lists, text, numbers, booleans and None; times in UTC."""
    size = correction.size
    return {
        "format": FORMAT,
        "label_studio": correction.key.label_studio,
        "project": correction.key.project,
        "annotation": correction.key.annotation,
        "updated_at": correction.revision.updated_at.astimezone(UTC).isoformat(),
        "content_hash": correction.revision.content_hash,
        "task": correction.task,
        "image": correction.image,
        "image_sha256": correction.image_sha256,
        "size": None if size is None else [size.height, size.width],
        "requests": list(correction.requests),
        "predicted": [_segment_to_json(one) for one in correction.predicted],
        "corrected": [_segment_to_json(one) for one in correction.corrected],
        "note_shown": correction.note_shown,
        "note_edited": correction.note_edited,
        "verdict": correction.verdict.value,
        "edit_iou": correction.edit_iou,
        "lead_time_s": correction.lead_time_s,
        "model_version": correction.model_version,
        "annotator": correction.annotator,
        "ground_truth": correction.ground_truth,
    }
