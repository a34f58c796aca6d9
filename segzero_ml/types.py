"""The nouns of the project: frozen values, checked when they are made.

A frame stands in the name of every variable that holds one of these: `box_px` (pixels of
the upright original image), `point_pct` (Label Studio's percent), `box_model` (the frame
the reasoner answers in). Axis order is x, y; the origin is the top left corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from segzero_ml.errors import GeometryError, MaskError

BoolMask = NDArray[np.bool_]
"""A mask as an array: bool, shape (height, width), True inside the object."""


def _check_finite(what: str, *values: float) -> None:
    if not all(math.isfinite(value) for value in values):
        raise GeometryError(f"{what} has a coordinate that is not finite: {values}.")


@dataclass(frozen=True, slots=True)
class Point:
    """A point; the frame is the variable's."""

    x: float
    y: float

    def __post_init__(self) -> None:
        _check_finite("A point", self.x, self.y)


@dataclass(frozen=True, slots=True)
class Box:
    """A box with `x1 <= x2` and `y1 <= y2`; the frame is the variable's.

    Raises:
        GeometryError: The corners are swapped or not finite.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        _check_finite("A box", self.x1, self.y1, self.x2, self.y2)
        if self.x1 > self.x2 or self.y1 > self.y2:
            raise GeometryError(f"The corners of a box are swapped: {self.as_tuple()}.")

    def as_tuple(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2)."""
        return (self.x1, self.y1, self.x2, self.y2)

    @property
    def width(self) -> float:
        """From left to right; at least 0."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """From top to bottom; at least 0."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Width times height."""
        return self.width * self.height

    @property
    def center(self) -> Point:
        """The point in the middle."""
        return Point((self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2)


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Width and height of an upright image in pixels, both at least 1."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise GeometryError(f"An image cannot be {self.width} x {self.height} pixels.")


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask in COCO's compressed run-length encoding (column-major, as pycocotools).

    Args:
        height: Rows of the mask.
        width: Columns of the mask.
        counts: The compressed counts as ASCII text.
    """

    height: int
    width: int
    counts: str

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise MaskError(f"A mask cannot be {self.width} x {self.height} pixels.")
        if not self.counts.isascii():
            raise MaskError("The counts of a run-length encoding must be ASCII text.")


@dataclass(frozen=True, slots=True)
class AnswerObject:
    """One object of a reasoner's answer, in one frame: its box and its positive points."""

    box: Box
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reasoner's text says.

    Args:
        reasoning: The text between the think tags, stripped; may be empty.
        objects: The objects in the order the reasoner named them, in the model's frame.
            Empty means "nothing here matches".
        problem: Why the text could not be read as an answer; None when it could.
            With a problem there are no objects.
    """

    reasoning: str
    objects: tuple[AnswerObject, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One object in the image.

    Args:
        box_px: The reasoner's box.
        points_px: The reasoner's positive points.
        rle: The mask that the segmenter cut, in the size of the upright original.
        score: In [0, 1]; ranks segments by how well the mask is likely to fit.
    """

    box_px: Box
    points_px: tuple[Point, ...]
    rle: Rle
    score: float


class ProblemKind(StrEnum):
    """What kind of problem a prediction has."""

    UNREADABLE = "unreadable"
    """The model's text could not be read as an answer."""
    NOTHING_CUT = "nothing-cut"
    """The segmenter found nothing where the reasoner pointed."""
    FAILED = "failed"
    """The request was refused, or a model did not answer."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one request about one image.

    Args:
        request: The request as the user wrote it.
        size: Size of the upright original image.
        reasoning: The reasoner's note to the annotator.
        segments: The objects found; empty means that nothing matches.
        score: In [0, 1]; ranks predictions by how right they are likely to be.
        model_version: The version that answered; never empty.
        problem: Why the model's text could not be used; None when it could.
        text: The model's text as generated.
        seconds: Time it took: compute, without waiting in a queue.
        problem_kind: The kind of `problem`; None without one.
    """

    request: str
    size: ImageSize
    reasoning: str
    segments: tuple[Segment, ...]
    score: float
    model_version: str
    problem: str | None = None
    text: str = field(default="", repr=False)
    seconds: float = 0.0
    problem_kind: ProblemKind | None = None
