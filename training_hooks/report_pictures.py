"""The pictures of a round's report: which cases are shown, and how."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from PIL import Image

from segzero_ml import side_by_side
from segzero_ml.errors import ConfigError, InputError
from segzero_ml.types import Rle
from training_hooks.gate_figures import Case, matched

Group = Literal["best", "worst", "random"]

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_COLOURS: Final = 128  # of a picture: a report holds dozens of them


@dataclass(frozen=True, slots=True)
class Chosen:
    """Examples worth a look, none of them twice.

    Args:
        best: Where the challenger gained most, the largest gain first.
        worst: Where it lost most, the largest loss first.
        random: Any others, by chance.
    """

    best: tuple[str, ...]
    worst: tuple[str, ...]
    random: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """One case before and after, for a person to look at.

    Args:
        group: Why it is shown.
        request: What was asked.
        kind: Kind of request or label; may be empty.
        champion_iou, challenger_iou: IoU of their masks, in [0, 1].
        champion_note, challenger_note: What they wrote as reasoning.
        image: The image as PNG; see `shown`.
        before: The champion's masks against the truth as PNG; see `overlay`.
        after: The challenger's.

    Raises:
        InputError: A picture is no PNG.
    """

    group: Group
    request: str
    kind: str
    champion_iou: float
    challenger_iou: float
    champion_note: str
    challenger_note: str
    image: bytes
    before: bytes
    after: bytes

    def __post_init__(self) -> None:
        if not all(data.startswith(_PNG) for data in (self.image, self.before, self.after)):
            raise InputError("The pictures of a report must be PNG.")


def choose(
    champion: Sequence[Case], challenger: Sequence[Case], each: int = 4, seed: int = 0
) -> Chosen:
    """Choose the cases to show; their order does not matter.

    Args:
        champion: At most one case of each example.
        challenger: Cases of the same examples.
        each: Most examples of each group, 0 or more.
        seed: Of the random ones.

    Raises:
        InputError: The two did not answer the same examples.
        ConfigError: `each` is negative.
    """
    if each < 0:
        raise ConfigError(f"{each} pictures cannot be shown.")
    gains = {
        before.example: after.counted_iou - before.counted_iou
        for before, after in matched(champion, challenger)
    }
    ranked = sorted(gains, key=lambda example: (gains[example], example))
    worst = [example for example in ranked if gains[example] < 0][:each]
    best = [example for example in reversed(ranked) if gains[example] > 0][:each]
    rest = sorted(gains.keys() - {*worst, *best})
    drawn = random.Random(seed).sample(rest, min(each, len(rest)))  # noqa: S311 - not secret
    return Chosen(tuple(best), tuple(worst), tuple(drawn))


def shown(image: Image.Image) -> bytes:
    """An image as PNG, made smaller if it is large."""
    small = image.convert("RGB")
    small.thumbnail((side_by_side.LONGEST_SIDE, side_by_side.LONGEST_SIDE))
    return _png(small)


def overlay(image: Image.Image, predicted: Sequence[Rle], true: Sequence[Rle]) -> bytes:
    """Where masks agree with the truth and where they differ, as PNG.

    Args:
        image: The upright image.
        predicted: What a model cut, in the image's size.
        true: What is right, in the image's size.

    Raises:
        MaskError: A mask is malformed or not of the image's size.
    """
    return _png(side_by_side.difference(image, predicted, true))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.quantize(_COLOURS).save(file, "PNG", optimize=True)
    return file.getvalue()
