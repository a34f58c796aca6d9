"""Which annotation a correction is of, and which state of it: all that the order needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from segzero_ml.checks import MAX_NAME_LENGTH, check_id, check_sha256, check_text
from segzero_ml.errors import InputError


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
        check_text("label_studio", self.label_studio, MAX_NAME_LENGTH, may_be_blank=False)
        if not self.label_studio.isprintable():
            raise InputError("The label_studio of a correction must be printable.")
        check_id("project", self.project)
        check_id("annotation", self.annotation)


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
        if self.updated_at.utcoffset() is None:
            raise InputError("The updated_at of a correction must be a time with its zone.")
        check_sha256("content_hash", self.content_hash)
