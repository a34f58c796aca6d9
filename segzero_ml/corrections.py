"""What a person made of a prediction: the training signal, as one frozen, checked value.

A correction belongs to one annotation of one Label Studio. The annotation may be saved
again: its newest `Revision` counts. Several people may annotate one task: all their
corrections are kept, and `choose_target` says which one is learnt from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC
from typing import Any, Final

from segzero_ml import masks
from segzero_ml.checks import (
    MAX_NAME_LENGTH,
    check_id,
    check_keys,
    check_list,
    check_number,
    check_sha256,
    check_text,
    read_time,
)
from segzero_ml.errors import InputError
from segzero_ml.revisions import CorrectionKey, Revision
from segzero_ml.types import ImageSize, Rle
from segzero_ml.verdict import Verdict

__all__ = [
    "FORMAT",
    "Correction",
    "CorrectionKey",
    "LabelledSegment",
    "Revision",
    "Verdict",
    "choose_target",
]

FORMAT: Final = 1
"""Version of the JSON form."""

MAX_SEGMENTS: Final = 1000
"""Segments of a correction, predicted and corrected each."""

MAX_REQUESTS: Final = 1000
MAX_REQUEST_LENGTH: Final = 10_000
MAX_NOTE_LENGTH: Final = 20_000
MAX_REFERENCE_LENGTH: Final = 8192

_KEY_AND_REVISION: Final = {"label_studio", "project", "annotation", "updated_at", "content_hash"}


_SEGMENTS_OF: Final = {  # whether anything is predicted, and whether anything is true
    Verdict.ACCEPTED: {(True, True), (False, False)},
    Verdict.EDITED: {(True, True), (False, True)},
    Verdict.REJECTED: {(True, True), (False, True)},
    Verdict.NOTHING_HERE: {(True, False), (False, False)},
    Verdict.DRAWN_BY_HAND: {(False, True)},
}


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
        check_text("label", self.label, MAX_NAME_LENGTH)
        check_text("request", self.request, MAX_REQUEST_LENGTH, may_be_blank=False)


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
        check_id("task", self.task)
        check_text("image", self.image, MAX_REFERENCE_LENGTH, may_be_blank=False)
        if self.image_sha256 is not None:
            check_sha256("image_sha256", self.image_sha256)
        _check_requests(self.requests)
        for what, segments in (("predicted", self.predicted), ("corrected", self.corrected)):
            _check_segments(what, segments, self.size, self.requests)
        check_text("note_shown", self.note_shown, MAX_NOTE_LENGTH)
        check_text("note_edited", self.note_edited, MAX_NOTE_LENGTH)
        _check_verdict(self.verdict, self.predicted, self.corrected)
        check_number("edit_iou", self.edit_iou, 1.0)
        check_number("lead_time_s", self.lead_time_s, math.inf)
        if self.model_version is not None:
            check_text("model_version", self.model_version, MAX_NAME_LENGTH, may_be_blank=False)
        if self.annotator is not None:
            check_id("annotator", self.annotator)
        if not isinstance(self.ground_truth, bool):
            raise InputError("The ground_truth of a correction must be true or false.")

    @property
    def request(self) -> str:
        """What was asked, in one text for people to read."""
        return "; ".join(self.requests)

    def truth(self, request: str) -> tuple[Rle, ...]:
        """True masks of one of the requests; without any, nothing here matches it."""
        return tuple(one.rle for one in self.corrected if one.request == request)

    def to_json(self) -> dict[str, Any]:
        """The JSON form: dicts, lists, text, numbers, booleans and None; the time in UTC."""
        return {
            "format": FORMAT,
            "label_studio": self.key.label_studio,
            "project": self.key.project,
            "annotation": self.key.annotation,
            "updated_at": self.revision.updated_at.astimezone(UTC).isoformat(),
            "content_hash": self.revision.content_hash,
            **{name: getattr(self, name) for name in _names()},
            "size": None if self.size is None else [self.size.height, self.size.width],
            "requests": list(self.requests),
            "predicted": [_segment_to_json(one) for one in self.predicted],
            "corrected": [_segment_to_json(one) for one in self.corrected],
            "verdict": self.verdict.value,
        }

    @classmethod
    def from_json(cls, value: object) -> Correction:
        """Read the JSON form; the text of the masks is checked when they are decoded.

        Raises:
            InputError: Of another format, a key is missing or unknown, or a value is not
                what it must be.
        """
        found = value.get("format") if isinstance(value, dict) else None
        if type(found) is not int or found != FORMAT:
            raise InputError(f"This is no correction in format {FORMAT}.")
        read = check_keys("A correction", value, {"format", *_KEY_AND_REVISION, *_names()})
        plain = {name: read[name] for name in _names()}
        plain["size"] = _size(read["size"])
        plain["requests"] = tuple(check_list("requests", read["requests"], MAX_REQUESTS))
        plain["predicted"] = _segments("predicted", read["predicted"])
        plain["corrected"] = _segments("corrected", read["corrected"])
        plain["verdict"] = _verdict(read["verdict"])
        key = CorrectionKey(read["label_studio"], read["project"], read["annotation"])
        saved = read_time("updated_at", read["updated_at"])
        return cls(key=key, revision=Revision(saved, read["content_hash"]), **plain)


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


def _names() -> list[str]:
    """Fields that are keys of the JSON form by their own name."""
    return [one.name for one in fields(Correction) if one.name not in ("key", "revision")]


def _segment_to_json(segment: LabelledSegment) -> dict[str, Any]:
    return {
        "label": segment.label,
        "request": segment.request,
        "mask": masks.to_json(segment.rle),
    }


def _segments(name: str, value: object) -> tuple[LabelledSegment, ...]:
    found = []
    for one in check_list(name, value, MAX_SEGMENTS):
        check_keys(f"A segment of {name}", one, {"label", "request", "mask"})
        found.append(LabelledSegment(masks.from_json(one["mask"]), one["label"], one["request"]))
    return tuple(found)


def _size(value: object) -> ImageSize | None:
    if value is None:
        return None
    sides = check_list("size", value, 2)
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        raise InputError("size must be two whole numbers: [height, width].")
    return ImageSize(width=sides[1], height=sides[0])


def _verdict(value: object) -> Verdict:
    try:
        return Verdict(value)  # type: ignore[arg-type]
    except ValueError:
        raise InputError(f"There is no verdict {str(value)[:50]!r}.") from None


def _check_requests(requests: tuple[str, ...]) -> None:
    if not 1 <= len(requests) <= MAX_REQUESTS:
        raise InputError(f"A correction needs 1 to {MAX_REQUESTS} requests.")
    for request in requests:
        check_text("request", request, MAX_REQUEST_LENGTH, may_be_blank=False)
    if len(set(requests)) < len(requests):
        raise InputError("A correction has the same request twice.")


def _check_segments(
    name: str,
    segments: tuple[LabelledSegment, ...],
    size: ImageSize | None,
    requests: tuple[str, ...],
) -> None:
    if len(segments) > MAX_SEGMENTS:
        raise InputError(f"{name} holds {len(segments)} segments; the limit is {MAX_SEGMENTS}.")
    for segment in segments:
        if size is None or (segment.rle.width, segment.rle.height) != (size.width, size.height):
            raise InputError(f"A mask of {name} is not of the image's size.")
        if segment.request not in requests:
            raise InputError(f"A segment of {name} answers a request that was not made.")


def _check_verdict(
    verdict: Verdict,
    predicted: tuple[LabelledSegment, ...],
    corrected: tuple[LabelledSegment, ...],
) -> None:
    if (bool(predicted), bool(corrected)) not in _SEGMENTS_OF[verdict]:
        raise InputError(
            f"The verdict {verdict.value} contradicts {len(predicted)} predicted and "
            f"{len(corrected)} corrected segments."
        )
