"""What a model could do before, rehearsed while it learns something new.

A project's corrections are all of one sort, and a model that learns from them alone gets worse
at everything else. So a round may mix in examples of a data set, and hold out others of it:
the gate asks for no fall on those.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from segzero_ml import masks
from segzero_ml.corrections import Verdict
from segzero_ml.datasets import Sample
from segzero_ml.datasets.jsonl import read_jsonl
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.errors import ConfigError
from segzero_ml.images import load_image
from segzero_ml.types import ImageSize
from training_hooks.snapshot import Snapshot, is_held_out
from training_hooks.snapshot_records import Example

SCENES: Final = "scenes"
"""The name of the bundled domain, drawn as it is needed."""

_SALT: Final = "rehearsal"
_FOLDER: Final = "rehearsal"
_HELD_OUT_SHARE: Final = 0.3
_MOST_SCENES: Final = 20_000
_EPOCH: Final = "1970-01-01T00:00:00.000000Z"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Examples of what is known already; their images lie in the folder of the round.

    Args:
        learnt: To be mixed in.
        held_out: To be judged by; of other images.
    """

    learnt: tuple[Example, ...] = ()
    held_out: tuple[Example, ...] = ()


def rehearse(
    source: str,
    folder: Path,
    learn: int,
    hold_out: int,
    seed: int,
    snapshot: Snapshot | None = None,
) -> Rehearsal:
    """Draw examples of a data set.

    Which images are held out hangs on the images alone: no round learns from them. Nor does one
    rehearse what its own snapshot holds out, or is judged by what it learns from, where the data
    set has pictures of the project.

    Args:
        source: `scenes`, or the folder of a `requests.jsonl`.
        folder: The round's, where the images are written.
        learn: How many to learn from.
        hold_out: How many to judge by.
        seed: Decides which ones are learnt from.
        snapshot: What the round learns from and is judged by besides; None for nothing.

    Returns:
        As many as the data set has, at most as many as asked for.

    Raises:
        DatasetError: There is no such data set, or it cannot be read.
        ConfigError: A folder was meant and is not there.
    """
    samples = scene_samples(_MOST_SCENES, held_out=False) if source == SCENES else _read(source)
    known = _Pictures(snapshot.train, snapshot.folder) if snapshot else _Pictures()
    kept = _Pictures(snapshot.held_out, snapshot.folder) if snapshot else _Pictures()
    # Those to be judged by are the same in every round.
    judged_by = _taken(samples, _order(len(samples), 0), folder, hold_out, known, held_out=True)
    learnt = _taken(samples, _order(len(samples), seed), folder, learn, kept, held_out=False)
    return Rehearsal(learnt, judged_by)


class _Pictures:
    """Pictures of examples, known by their pixels: a file may have been written anew.

    Only those of a size that is asked for are read.
    """

    def __init__(self, examples: Sequence[Example] = (), folder: Path = Path()) -> None:
        self._files: dict[ImageSize, set[Path]] = {}
        for one in examples:
            self._files.setdefault(one.size, set()).add(folder / one.image_file)
        self._pixels: dict[ImageSize, set[str]] = {}

    def have(self, image: Image.Image) -> bool:
        """Whether an image is one of them."""
        size = ImageSize(image.width, image.height)
        if size not in self._pixels:
            files = self._files.get(size, ())
            self._pixels[size] = {_pixels(load_image(file)) for file in files}
        return bool(self._pixels[size]) and _pixels(image) in self._pixels[size]


def _pixels(image: Image.Image) -> str:
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def _read(source: str) -> Sequence[Sample]:
    if not Path(source).is_dir():
        raise ConfigError(
            f"There is nothing to rehearse at {source}.",
            f"Give {SCENES}, or the folder of a requests.jsonl.",
        )
    return read_jsonl(source)


def _order(count: int, seed: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).permutation(count)]


def _taken(
    samples: Sequence[Sample],
    order: Sequence[int],
    folder: Path,
    number: int,
    not_of: _Pictures,
    *,
    held_out: bool,
) -> tuple[Example, ...]:
    """The first ones in an order that are on a side, each in a file of its own."""
    taken: list[Example] = []
    for index in order:
        if len(taken) >= number:
            break
        sample = samples[index]
        stream = BytesIO()
        image = sample.image()
        image.save(stream, "PNG")
        name = hashlib.sha256(stream.getvalue()).hexdigest()
        if is_held_out(name, _SALT, _HELD_OUT_SHARE) != held_out or not_of.have(image):
            continue
        file = Path(_FOLDER) / f"{name}.png"
        (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
        _write(folder / file, stream.getvalue())
        taken.append(_example(sample, name, file, ImageSize(image.width, image.height), index + 1))
    return tuple(taken)


def _write(path: Path, data: bytes) -> None:
    """Of several processes that train together each writes them, and none sees half a file."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)


def _example(sample: Sample, sha256: str, file: Path, size: ImageSize, number: int) -> Example:
    return Example(
        image_sha256=sha256,
        image_file=str(file),
        size=size,
        request=sample.request,
        true_masks=tuple(masks.encode(mask) for mask in sample.masks),
        task=number,
        annotation=number,
        verdict=Verdict.DRAWN_BY_HAND if sample.masks else Verdict.NOTHING_HERE,
        updated_at=_EPOCH,
        origin="older",
    )
