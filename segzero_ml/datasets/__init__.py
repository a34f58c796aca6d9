"""Data sets of images, requests and true masks, all read as one `Sample` type.

Readers check everything that is cheap to check at once, so that an evaluation does not
fail after an hour; pictures and masks are decoded only when a sample is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from segzero_ml.errors import DatasetError, RequestError
from segzero_ml.reasoner.prompts import normalise_request
from segzero_ml.types import BoolMask

MAX_LISTED_BYTES = 64 * 1024 * 1024
"""Longest annotation file, or line of one, that is read."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One request about one image, with the truth.

    Args:
        image: Gives the upright RGB image; decoding happens on the call.
        request: What is asked for.
        masks: One mask per object, bool (height, width); none when nothing matches.
        ignore: Pixels that count neither way, bool (height, width); None when all count.
        kind: Kind of request, for breakdowns.
        sample_id: Name within the data set.
    """

    image: Callable[[], Image.Image]
    request: str
    masks: tuple[BoolMask, ...]
    ignore: BoolMask | None = None
    kind: str = ""
    sample_id: str = ""


class Samples(Sequence[Sample]):
    """Samples that are read when they are taken.

    Args:
        makers: One function per sample.
    """

    def __init__(self, makers: Sequence[Callable[[], Sample]]) -> None:
        self._makers = makers

    def __len__(self) -> int:
        return len(self._makers)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return Samples(self._makers[index])
        return self._makers[index]()


def chosen(count: int, limit: int | None, seed: int) -> list[int]:
    """Pick which of `count` samples to use: all, or `limit` drawn without repetition.

    Args:
        count: How many there are.
        limit: How many to use at most; None for all.
        seed: Seed of the draw; the same seed gives the same samples.

    Returns:
        Indices in ascending order.

    Raises:
        DatasetError: The limit is below 1.
    """
    if limit is None:
        return list(range(count))
    if limit < 1:
        raise DatasetError(f"The limit on samples must be at least 1, not {limit}.")
    drawn = np.random.default_rng(seed).permutation(count)[:limit]
    return sorted(int(index) for index in drawn)


def checked_request(value: object, where: str) -> str:
    """Return a request as it stands in a file, if a reasoner will take it.

    Args:
        value: What the file has for a request.
        where: File and line, for the message.

    Raises:
        DatasetError: Not text, empty, or too long.
    """
    if not isinstance(value, str):
        raise DatasetError(f"{where}: the request must be text.")
    try:
        normalise_request(value)
    except RequestError as error:
        raise DatasetError(f"{where}: {error.message}", error.remedy) from error
    return value


def checked_folder(root: str | Path) -> Path:
    """Return a data set's folder as an absolute path without links.

    Raises:
        DatasetError: There is no such folder.
    """
    folder = Path(root).resolve()
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {root}.", "Give the folder of the data set.")
    return folder
