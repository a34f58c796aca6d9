"""What goes into a snapshot, and on which side: pure functions of hashes, never of order.

An image is held out, or trained on, by its content alone, for ever. Of the corrections to train
on all new ones are taken; older ones and accepted predictions are drawn by lot from a seed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from segzero_ml.checks import check_sha256, check_text
from segzero_ml.corrections import Correction
from segzero_ml.errors import ConfigError, InputError

_LONGEST_SALT: Final = 100
_NEARLY: Final = 1e-9  # 0.3 / 0.1 is a little less than 3


class Side(StrEnum):
    """What an image is for."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """How a snapshot is put together.

    Args:
        held_out_share: Share of images that is never trained on, between 0 and 1. A project's
            first snapshot fixes it together with the salt; later ones use those.
        held_out_most: Corrections held out at most, 1 or more.
        older_share: Share of older corrections in the mix, in [0, 1).
        accepted_share: Greatest share of accepted predictions in the mix, in [0, 1).
        small: Corrections up to which all new and older ones are taken.
        seed: Decides which older and accepted ones are drawn.
        salt: Decides, with an image's content, on which side it is.

    Raises:
        ConfigError: A value is out of its range, or nothing is left for new corrections.
    """

    held_out_share: float = 0.2
    held_out_most: int = 400
    older_share: float = 0.3
    accepted_share: float = 0.2
    small: int = 2000
    seed: int = 0
    salt: str = "segzero"

    def __post_init__(self) -> None:
        if not 0 < self.held_out_share < 1:
            raise ConfigError("The share of images held out must lie between 0 and 1.")
        if self.held_out_most < 1 or self.small < 0:
            raise ConfigError("held_out_most must be 1 or more, and small 0 or more.")
        shares = (self.older_share, self.accepted_share)
        if not all(0 <= share < 1 for share in shares) or sum(shares) >= 1:
            raise ConfigError(
                "The shares of older corrections and of accepted predictions must be 0 or more "
                "and leave something for new corrections.",
                "Give shares that sum to less than 1.",
            )
        try:
            check_text("salt", self.salt, _LONGEST_SALT)
        except InputError as error:
            raise ConfigError(error.message) from error


def is_held_out(image_sha256: str, salt: str, share: float) -> bool:
    """Whether an image is never trained on; it never changes sides.

    Args:
        image_sha256: SHA-256 of its file.
        salt: The project's.
        share: Of all images, in [0, 1]; with a greater one those held out stay so.

    Raises:
        InputError: It is no SHA-256.
    """
    return _draw(image_sha256, salt) < share


def keep_held_out(
    corrections: Iterable[tuple[Correction, str]], options: SnapshotOptions
) -> list[Correction]:
    """Those to compare models on: the same images each time, as long as they are there.

    Args:
        corrections: On the held-out side, each with its image's SHA-256.
        options: How many at most.
    """
    found = list(corrections)
    # Of one image's corrections the same come first, whatever the seed of the round.
    found.sort(key=lambda one: (_draw(one[1], options.salt), _lot(one[0], seed=0)))
    return [correction for correction, _ in found[: options.held_out_most]]


def keep_to_train(
    new: list[Correction],
    older: list[Correction],
    accepted: list[Correction],
    options: SnapshotOptions,
) -> list[Correction]:
    """Those to learn from: all new ones, and as many of the others as the shares allow."""
    older_count, accepted_count = mix(len(new), len(older), len(accepted), options)

    def lot(one: Correction) -> str:
        return _lot(one, options.seed)

    return [
        *new,
        *sorted(older, key=lot)[:older_count],
        *sorted(accepted, key=lot)[:accepted_count],
    ]


def mix(new: int, older: int, accepted: int, options: SnapshotOptions) -> tuple[int, int]:
    """How many older corrections and accepted predictions are taken beside all new ones.

    Older ones get their share, and whatever room a small round leaves. Accepted predictions
    get no more than their share of the whole, so that they never make up for missing work.

    Returns:
        (older, accepted), each no more than there are.
    """
    whole = new / (1 - options.older_share - options.accepted_share)
    by_share = math.ceil(options.older_share * whole - _NEARLY)
    take_older = min(older, max(by_share, options.small - new))
    odds = options.accepted_share / (1 - options.accepted_share)
    take_accepted = math.floor(odds * (new + take_older) + _NEARLY)
    return take_older, min(accepted, take_accepted)


def _draw(image_sha256: str, salt: str) -> float:
    """A number in [0, 1) that only the image's content and the salt decide."""
    check_sha256("image_sha256", image_sha256)
    digest = hashlib.sha256(f"{salt}:{image_sha256}".encode()).hexdigest()
    # 52 bits: each is a float exactly, and none rounds up to 1.
    return int(digest[:13], 16) / 16**13


def _lot(correction: Correction, seed: int) -> str:
    key, content = correction.key, correction.revision.content_hash
    text = f"{seed}:{key.label_studio}:{key.project}:{key.annotation}:{content}"
    return hashlib.sha256(text.encode()).hexdigest()
