"""Data sets written to a folder, in the forms that the readers beside this take.

A writer is handed one item at a time and keeps nothing of it, so that any number goes through.
An item that cannot be written raises before a byte of it is on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from segzero_ml import masks
from segzero_ml.datasets.pictures import Picture
from segzero_ml.errors import DatasetError, MaskError
from segzero_ml.types import BoolMask, Rle

IMAGES = "images"
"""Folder of the pictures, where the format has one."""


@dataclass(frozen=True, slots=True)
class TrueSegment:
    """One object: its mask, in the size of the upright image, and its label, which may be empty."""

    rle: Rle
    label: str = ""


@dataclass(frozen=True, slots=True)
class TrueAnswer:
    """A request, as a reasoner takes it, and what is right; without segments nothing is."""

    request: str
    segments: tuple[TrueSegment, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One picture and what was asked about it.

    Args:
        name: Of letters, digits and dashes; two of one name are one.
        picture: Its file.
        answers: At least one.
        kind: Groups the figures of an evaluation; may be empty.
    """

    name: str
    picture: Picture
    answers: tuple[TrueAnswer, ...]
    kind: str = ""


class Writer(Protocol):
    """Writes items to a folder of its own."""

    def add(self, item: Item) -> bool:
        """Write an item.

        Returns:
            False if one of its name is there already; then nothing is written.

        Raises:
            MaskError: A mask is malformed or not of the picture's size; nothing is written.
            DatasetError: It is larger than a reader takes; nothing is written.
            OSError: A file cannot be written.
        """

    def close(self) -> None:
        """Complete the files. Without it they are not to be used."""


def decoded(item: Item, rle: Rle) -> BoolMask:
    """A mask of an item.

    Raises:
        MaskError: It is malformed or not of the picture's size.
    """
    size = item.picture.size
    if (rle.width, rle.height) != (size.width, size.height):
        raise MaskError(
            f"A mask of {rle.width} x {rle.height} pixels does not fit a picture of "
            f"{size.width} x {size.height}."
        )
    return masks.decode(rle)


def write_new(path: Path, data: bytes) -> bool:
    """Write a file unless there is one of that name; whether it is new."""
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def check_length(data: bytes, longest: int) -> bytes:
    """Refuse what a reader would not read back.

    Raises:
        DatasetError: More than `longest` bytes.
    """
    if len(data) > longest:
        raise DatasetError(f"Its annotation is {len(data):,} bytes long; the limit is {longest:,}.")
    return data
