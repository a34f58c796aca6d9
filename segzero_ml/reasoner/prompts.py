"""What the reasoner is asked, and the image it is shown: all pure."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import assert_never

from PIL import Image

from segzero_ml.errors import RequestError
from segzero_ml.geometry import Frame, smart_resize
from segzero_ml.presets import REQUEST_SLOT, FrameKind, Resized, Squash, Thousand
from segzero_ml.types import ImageSize

MAX_REQUEST_LENGTH = 2000
# Beyond this even whitespace to collapse is no excuse: refused without looking at it.
MAX_RAW_LENGTH = 20 * MAX_REQUEST_LENGTH
THOUSAND = 1000.0
# Processors refuse sides more than 200 times apart; rounding must not reach that limit.
MAX_ASPECT = 100

_NOT_TEXT = frozenset({"Cc", "Cs"})  # control characters and lone surrogates


def normalise_request(request: str) -> str:
    """The form in which requests reach a reasoner; applying it twice changes nothing.

    Whitespace is collapsed, letters are lower-cased and full stops at the end dropped, as
    the models were trained. `<|` and `|>` are parted, so that no request can hold a control
    token of a chat template.

    Raises:
        RequestError: Nothing is left, or it is longer than 2000 characters.
    """
    check_raw_length(request)
    readable = "".join(" " if unicodedata.category(c) in _NOT_TEXT else c for c in request)
    parted = readable.replace("<|", "< |").replace("|>", "| >")
    text = re.sub(r"\s+", " ", parted).strip().lower().rstrip(". ")
    if not text:
        raise RequestError("The request is empty.", "Say in plain words what to find.")
    if len(text) > MAX_REQUEST_LENGTH:
        raise _too_long(text)
    return text


def check_raw_length(request: str) -> None:
    """Refuse, in no time, what is too long even to be normalised or searched.

    Raises:
        RequestError: It is longer than 20 times the limit, whatever it is made of.
    """
    if len(request) > MAX_RAW_LENGTH:
        raise _too_long(request)


def _too_long(request: str) -> RequestError:
    return RequestError(
        f"The request is {len(request)} characters long; the limit is {MAX_REQUEST_LENGTH}.",
        "Shorten it to what is to be found.",
    )


def build_prompt(template: str, request: str, special_tokens: Iterable[str] = ()) -> str:
    """Put a request into a preset's prompt.

    Args:
        template: The preset's prompt; `{request}` stands for the request.
        request: A normalised request.
        special_tokens: Tokens with a meaning to the model; those in the request are broken
            up so that it cannot close its own turn or add an image.
    """
    for token in sorted(special_tokens, key=len, reverse=True):
        if len(token) > 1:
            request = request.replace(token, f"{token[0]} {token[1:]}")
    return template.replace(REQUEST_SLOT, request)


def prepare_image(image: Image.Image, kind: FrameKind) -> Image.Image:
    """The image as a reasoner's processor is to receive it, mode RGB.

    Args:
        image: Upright, any mode and size.
        kind: The preset's frame.

    Returns:
        A square for `Squash`; for the others the image itself, unless it is so long and
        thin that processors refuse it (its longer side is then shortened, which no frame
        notices: every frame spans the whole image).
    """
    image = image.convert("RGB")
    match kind:
        case Squash(side=side):
            return image.resize((side, side), Image.Resampling.BICUBIC)
        case Resized() | Thousand():
            width, height = image.size
            wanted = (min(width, height * MAX_ASPECT), min(height, width * MAX_ASPECT))
            if wanted == image.size:
                return image
            return image.resize(wanted, Image.Resampling.BICUBIC)
        case _:
            assert_never(kind)


def fit_image(image: Image.Image, kind: FrameKind) -> Image.Image:
    """`prepare_image`, and resized as the model's own processor would.

    For servers: their processor then leaves the size alone, and the frame is known here.
    """
    size = size_seen(kind, ImageSize(image.width, image.height))
    image = prepare_image(image, kind)
    if image.size == (size.width, size.height):
        return image
    return image.resize((size.width, size.height), Image.Resampling.BICUBIC)


def size_seen(kind: FrameKind, size: ImageSize) -> ImageSize:
    """The size in which a reasoner sees an image, after `prepare_image` and its processor.

    Args:
        kind: The preset's frame.
        size: The image's.
    """
    if isinstance(kind, Squash):
        return ImageSize(kind.side, kind.side)
    width = min(size.width, size.height * MAX_ASPECT)
    height = min(size.height, size.width * MAX_ASPECT)
    return smart_resize(ImageSize(width, height), kind.factor, kind.min_pixels, kind.max_pixels)


def frame_of(kind: FrameKind, seen: ImageSize) -> Frame:
    """The frame in which the reasoner answers.

    Args:
        kind: The preset's frame.
        seen: Size of the image that the model really saw, after its processor.
    """
    match kind:
        case Squash(side=side):
            return Frame(float(side), float(side))
        case Resized():
            return Frame(float(seen.width), float(seen.height))
        case Thousand():
            return Frame(THOUSAND, THOUSAND)
        case _:
            assert_never(kind)


def geometric_mean(log_probabilities: Iterable[float]) -> float | None:
    """Geometric mean of probabilities given as logarithms, in [0, 1]; None without any.

    Anything not finite counts as probability 0.
    """
    values = list(log_probabilities)
    if not values:
        return None
    if not all(math.isfinite(value) for value in values):
        return 0.0
    return min(1.0, math.exp(math.fsum(values) / len(values)))
