"""What a snapshot holds: examples, and what was left out; each as one line of JSON.

Keys are sorted, so that equal records are equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal, get_args

from segzero_ml import masks
from segzero_ml.checks import check_id, check_keys, check_list, check_sha256, read_time
from segzero_ml.errors import DatasetError, InputError
from segzero_ml.types import ImageSize, Rle
from segzero_ml.verdict import Verdict
from training_hooks.snapshot_options import Side

Origin = Literal["new", "older", "accepted"]
"""Saved since the last round, before, or a prediction that was accepted as it was."""

_MAX_MASKS: Final = 1000


@dataclass(frozen=True, slots=True)
class Example:
    """One request about one image, with its true answer.

    Args:
        image_sha256: SHA-256 of the image's file.
        image_file: Where it lies, relative to the snapshot's folder.
        size: Of the upright image.
        request: What was asked.
        true_masks: What is true, a mask per object; none: nothing matches.
        task: Id of the task.
        annotation: Id of the annotation.
        verdict: What the annotator made of the prediction.
        updated_at: When the annotation was saved, ISO 8601 in UTC.
        origin: Where it comes from.
    """

    image_sha256: str
    image_file: str
    size: ImageSize
    request: str
    true_masks: tuple[Rle, ...]
    task: int
    annotation: int
    verdict: Verdict
    updated_at: str
    origin: Origin


class Reason(StrEnum):
    """Why a correction, or a request of it, is not in a snapshot."""

    OTHER_ANNOTATION = "another annotation of its task counts"
    NOT_DRAWN = "not drawn for this mix"
    NO_IMAGE = "its image cannot be fetched"
    HOST_AWAY = "the host of its image was away"
    BAD_IMAGE = "its image has changed or cannot be used"
    BAD_REQUEST = "its request cannot be asked"


BY_DESIGN: Final = frozenset({Reason.OTHER_ANNOTATION, Reason.NOT_DRAWN})
"""Nothing is wrong with these."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One that is not in the snapshot.

    Args:
        annotation: Id of the annotation.
        content_hash: Of the annotation's revision.
        updated_at: When it was saved, ISO 8601 in UTC.
        reason: Why.
        detail: More of it, for people; no part of the snapshot's id.
    """

    annotation: int
    content_hash: str
    updated_at: str
    reason: Reason
    detail: str = ""


def canonical(value: object) -> str:
    """JSON in one line of ASCII, the same for equal values."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def example_line(example: Example, side: Side) -> str:
    """An example as one line of JSON."""
    return canonical(
        {
            "side": side.value,
            **{one.name: getattr(example, one.name) for one in fields(Example)},
            "size": [example.size.height, example.size.width],
            "true_masks": [masks.to_json(rle) for rle in example.true_masks],
            "verdict": example.verdict.value,
        }
    )


def read_example(line: str) -> tuple[Example, Side]:
    """Read what `example_line` wrote; the masks' text is checked when they are decoded.

    Raises:
        DatasetError: It is none.
    """
    names = {one.name for one in fields(Example)}
    try:
        read = check_keys("An example", json.loads(line), names | {"side"})
        check_sha256("image_sha256", read["image_sha256"])
        height, width = check_list("size", read["size"], 2)
        if read["origin"] not in get_args(Origin):
            raise InputError("There is no such origin.")
        rles = check_list("true_masks", read["true_masks"], _MAX_MASKS)
        plain = {name: read[name] for name in ("image_sha256", "image_file", "request", "origin")}
        if not all(isinstance(text, str) for text in plain.values()):
            raise InputError("A text is missing.")
        read_time("updated_at", read["updated_at"])
        example = Example(
            **plain,
            size=ImageSize(width, height),
            true_masks=tuple(masks.from_json(rle) for rle in rles),
            task=check_id("task", read["task"]),
            annotation=check_id("annotation", read["annotation"]),
            verdict=Verdict(read["verdict"]),
            updated_at=read["updated_at"],
        )
        return example, Side(read["side"])
    except (InputError, ValueError, TypeError, RecursionError) as error:
        raise DatasetError(f"An example of a snapshot cannot be read: {error}") from error


def left_out_line(one: LeftOut) -> str:
    """One that was left out as one line of JSON."""
    return canonical(asdict(one))


def left_out_record(one: LeftOut) -> str:
    """What counts of it: all but the detail, which a network may word in many ways."""
    return canonical({**asdict(one), "detail": ""})


def read_left_out(line: str) -> LeftOut:
    """Read what `left_out_line` wrote.

    Raises:
        DatasetError: It is none.
    """
    try:
        read = check_keys("A line", json.loads(line), {one.name for one in fields(LeftOut)})
        check_sha256("content_hash", read["content_hash"])
        read_time("updated_at", read["updated_at"])
        check_id("annotation", read["annotation"])
        return LeftOut(**{**read, "reason": Reason(read["reason"]), "detail": str(read["detail"])})
    except (InputError, ValueError, TypeError, RecursionError) as error:
        raise DatasetError(f"What a snapshot left out cannot be read: {error}") from error


def time_text(moment: datetime) -> str:
    """A time in ISO 8601 and UTC."""
    return moment.astimezone(UTC).isoformat()


def sha256(text: str) -> str:
    """SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
