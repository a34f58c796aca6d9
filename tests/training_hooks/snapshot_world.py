"""Corrections of real pictures for the tests of snapshots: no fixtures, no tests."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from segzero_ml import masks
from segzero_ml.corrections import Correction, LabelledSegment, Verdict
from segzero_ml.errors import FetchError
from segzero_ml.types import ImageSize, Rle
from tests.training_hooks.store_samples import correction
from training_hooks.snapshot import SnapshotOptions, build_snapshot

SIZE = ImageSize(12, 8)


def picture(number: int, form: str = "PNG") -> bytes:
    """A small picture; another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIZE.height, SIZE.width, 3))
    stream = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, form)
    return stream.getvalue()


def mask(shift: int = 0) -> Rle:
    """A square of nine pixels."""
    pixels = np.zeros((SIZE.height, SIZE.width), dtype=bool)
    pixels[1:4, 1 + shift : 4 + shift] = True
    return masks.encode(pixels)


@dataclass
class Studio:
    """Has pictures by reference, and counts how often each is fetched."""

    files: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    def fetch(self, one: Correction) -> bytes:
        """As the backend's fetcher does."""
        self.fetched.append(one.image)
        if one.image not in self.files:
            raise FetchError(f"There is no {one.image}.")
        return self.files[one.image]

    def corrected(
        self,
        number: int,
        *,
        second: float = 0,
        verdict: Verdict = Verdict.EDITED,
        requests: Sequence[str] = ("the red star",),
        true_masks: Sequence[Rle] = (mask(),),
        task: int | None = None,
        picture_number: int | None = None,
        knows_hash: bool = True,
    ) -> Correction:
        """A correction with that annotation id; the true masks answer the first request."""
        file = picture(number if picture_number is None else picture_number)
        task = number if task is None else task
        base = correction(number, second, task=task, verdict=verdict)
        self.files[base.image] = file
        shown = () if verdict is Verdict.DRAWN_BY_HAND else (_segment(mask(1), requests[0]),)
        found = () if verdict is Verdict.NOTHING_HERE else true_masks
        return replace(
            base,
            image_sha256=hashlib.sha256(file).hexdigest() if knows_hash else None,
            size=SIZE,
            requests=tuple(requests),
            predicted=shown,
            corrected=tuple(_segment(rle, requests[0]) for rle in found),
        )


def _segment(rle: Rle, request: str) -> LabelledSegment:
    return LabelledSegment(rle, "Star", request)


def main(folder: Path) -> None:
    """Make snapshots of ever more corrections, until somebody ends this process."""
    studio = Studio()
    corrections: list[Correction] = []
    for number in count(1):
        corrections.append(studio.corrected(number, second=number))
        if number >= 8:
            made = build_snapshot(corrections, studio.fetch, folder, SnapshotOptions(), None)
            print(made.id, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
