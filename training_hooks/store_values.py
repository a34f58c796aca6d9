"""What the store takes and gives, and the form in which it keeps a correction."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from segzero_ml.checks import MAX_NAME_LENGTH, check_id, check_text
from segzero_ml.corrections import Correction, CorrectionKey, Revision, Verdict
from segzero_ml.errors import InputError, StoreError

LARGEST_CORRECTION: Final = 64 << 20
"""Bytes of JSON; a correction that takes more is refused."""

WITHDRAWN: Final = "~"
"""What follows a revision that holds no truth, so that it goes before the same with some."""

MILLION: Final = 1_000_000
"""An IoU is kept as a whole number of millionths, so that sums of it stay exact."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
_OFFSET_US: Final = 10**12  # a time zone may put a moment of year 1 before the beginning
_DIGITS: Final = 18


class Outcome(StrEnum):
    """What the store did with what it was given."""

    CREATED = "created"
    UPDATED = "updated"
    SAME = "same"
    """It has exactly this revision already."""
    STALE = "stale"
    """It has a newer revision."""
    DELETED = "deleted"
    """The annotation, or its whole task, was deleted before."""

    @property
    def changed(self) -> bool:
        """Whether the store is another one than before."""
        return self in (Outcome.CREATED, Outcome.UPDATED)


@dataclass(frozen=True, slots=True)
class ProjectKey:
    """Which project of which Label Studio.

    Raises:
        InputError: The name is blank or too long, or the id is no whole number above 0.
    """

    label_studio: str
    project: int

    def __post_init__(self) -> None:
        check_text("label_studio", self.label_studio, MAX_NAME_LENGTH, may_be_blank=False)
        check_id("project", self.project)

    @classmethod
    def of(cls, key: CorrectionKey) -> ProjectKey:
        """The project of an annotation."""
        return cls(key.label_studio, key.project)

    def annotation(self, annotation: int) -> CorrectionKey:
        """The key of one of its annotations."""
        return CorrectionKey(self.label_studio, self.project, annotation)


@dataclass(frozen=True, slots=True)
class News:
    """Which corrections came after the last round.

    Args:
        since: Up to when that round knew the corrections, by Redis's clock.
        annotations: Those that the store learnt after that, whenever they were saved, and those
            that were unseen.
        unseen: Those that the last round did without: the hosts of their images were away.
    """

    since: datetime
    annotations: frozenset[int]
    unseen: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows of an annotation that is not deleted.

    Args:
        revision: The newest state that it learnt.
        has_truth: Whether there is a correction; without, the annotation is withdrawn.
    """

    revision: Revision
    has_truth: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Corrections in the order in which the store learnt them.

    Args:
        corrections: At most as many as were asked for.
        after: What to ask for next: everything up to here was seen.
        is_last: Whether there was nothing more at the time.
        unreadable: Ids of annotations whose correction is damaged or of an unknown format.
            Deleting one and reading Label Studio anew brings it back.
    """

    corrections: tuple[Correction, ...]
    after: int
    is_last: bool
    unreadable: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a project's corrections say about its predictions.

    Args:
        verdicts: How many corrections have which verdict; every verdict is there.
        withdrawn: Annotations that hold no truth at present (skipped ones).
        deleted: Annotations that were deleted, ever.
        accept_rate: Accepted ones among those made with a prediction in view, in [0, 1];
            None where there are none.
        mean_edit_iou: Mean overlap of predictions with what became of them, in [0, 1], or None.
        median_lead_time_shown_s: Median seconds for an annotation that began with a
            prediction, or None.
        median_lead_time_alone_s: The same for those that began with nothing.
    """

    verdicts: Mapping[Verdict, int]
    withdrawn: int
    deleted: int
    accept_rate: float | None
    mean_edit_iou: float | None
    median_lead_time_shown_s: float | None
    median_lead_time_alone_s: float | None

    @property
    def corrections(self) -> int:
        """How many there are."""
        return sum(self.verdicts.values())


def microseconds(moment: datetime) -> int:
    """Since 1970: as the store counts time, and numbers what it learns."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(number: int) -> datetime:
    """When the store learnt what has this number, by Redis's clock."""
    return _EPOCH + timedelta(microseconds=number)


def prediction_was_shown(correction: Correction) -> bool:
    """Whether the annotator began with a prediction, be it an empty one."""
    if correction.verdict is Verdict.NOTHING_HERE:
        return bool(correction.predicted) or correction.edit_iou is not None
    return correction.verdict is not Verdict.DRAWN_BY_HAND


def sortable(revision: Revision) -> str:
    """A revision as ASCII text that sorts as revisions do."""
    since = (revision.updated_at - _BEGINNING) // timedelta(microseconds=1) + _OFFSET_US
    return f"{since:0{_DIGITS}d}:{revision.content_hash}"


def from_sortable(text: str) -> Revision:
    """Read what `sortable` wrote, be it of a correction or of a withdrawal.

    Raises:
        StoreError: It is none.
    """
    digits, _, content = text.removesuffix(WITHDRAWN).partition(":")
    try:
        since = timedelta(microseconds=int(digits) - _OFFSET_US)
        return Revision(_BEGINNING + since, content)
    except (ValueError, OverflowError, InputError):
        raise StoreError("A stored revision cannot be read.") from None


def pack(correction: Correction) -> bytes:
    """A correction as bytes: its JSON form, compressed.

    Raises:
        InputError: It takes more than `LARGEST_CORRECTION`.
    """
    text = json.dumps(correction.to_json(), ensure_ascii=False, separators=(",", ":"))
    data = text.encode()
    if len(data) > LARGEST_CORRECTION:
        raise InputError(
            f"A correction of {len(data):,} bytes is too large to be kept; "
            f"the limit is {LARGEST_CORRECTION:,}."
        )
    return zlib.compress(data)


def unpack(data: bytes) -> Correction:
    """Read what `pack` wrote.

    Raises:
        StoreError: It is damaged, of an unknown format, or larger than allowed.
    """
    try:
        reader = zlib.decompressobj()
        text = reader.decompress(data, LARGEST_CORRECTION)
        if not reader.eof:
            raise StoreError("A stored correction is cut off or too large.")
        return Correction.from_json(json.loads(text))
    # RecursionError: brackets nested too deeply. ValueError: no JSON, or no UTF-8.
    except (zlib.error, ValueError, RecursionError, InputError) as error:
        raise StoreError(f"A stored correction cannot be read: {error}") from error
