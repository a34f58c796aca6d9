"""Golden predictions: what a version answered when it was published, asked again before it serves.

A file can pass every check of its bytes and still not be what was measured: laid over
another base, read with another scale, run by a library that changed. The answers tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Final

from PIL import Image

from segzero_ml.answer import parse
from segzero_ml.errors import ImageError, WeightsError
from segzero_ml.geometry import Frame
from segzero_ml.images import ImageLimits, decode_image
from segzero_ml.reasoner.prompts import normalise_request
from segzero_ml.reasoner.protocol import Reasoner
from segzero_ml.types import Answer
from segzero_ml.versions import Golden

TOLERANCE: Final = 2.0
"""How far an edge of a box may move, in units of the model's frame."""

LONGEST_SIDE: Final = 448
"""Images are made this small, in pixels: they are kept in the manifest."""

_LIMITS: Final = ImageLimits(max_bytes=2 << 20, max_pixels=LONGEST_SIDE**2)
_REMEDY: Final = "Train again over this base, or go back with segzero rollback."


def record_golden(
    reasoner: Reasoner, images: Sequence[Image.Image], requests: Sequence[str]
) -> tuple[Golden, ...]:
    """Note what a reasoner answers, to be asked again by `check_golden`.

    Args:
        reasoner: With the adapter that is to be published, loaded as for serving.
        images: A few, such as three; they are made smaller first.
        requests: One for each image.

    Raises:
        RequestError: A request is empty or too long.
        ModelError: The reasoner does not answer.
    """
    pngs = [_small_png(image) for image in images]
    texts = _ask(reasoner, pngs, requests)
    return tuple(
        Golden(request, png, text)
        for request, png, (text, _) in zip(requests, pngs, texts, strict=True)
    )


def check_golden(
    reasoner: Reasoner, golden: Sequence[Golden], tolerance: float = TOLERANCE
) -> None:
    """Have a reasoner reproduce its golden predictions.

    As many objects, in the same order, each edge of their boxes where it was; the words may
    differ, since numbers rounded otherwise on other hardware can change them.

    Args:
        reasoner: With the adapter on.
        golden: As recorded; nothing is asked without any.
        tolerance: How far an edge may move, in units of the model's frame.

    Raises:
        WeightsError: One is not reproduced.
        ModelError: The reasoner does not answer.
    """
    if not golden:
        return
    asked = [one.request for one in golden]
    for one, (text, frame) in zip(
        golden, _ask(reasoner, [one.png for one in golden], asked), strict=True
    ):
        if not _is_same(parse(one.text, frame), parse(text, frame), tolerance):
            raise WeightsError(
                f"The model answers {one.request[:100]!r} otherwise than when it was published.",
                _REMEDY,
            )


def _ask(
    reasoner: Reasoner, pngs: Sequence[bytes], requests: Sequence[str]
) -> list[tuple[str, Frame]]:
    # All at once and in this order, both times: how a batch is padded changes its rounding.
    try:
        images = [decode_image(png, _LIMITS) for png in pngs]
    except ImageError as error:
        raise WeightsError(f"A golden prediction has no image: {error}", _REMEDY) from error
    outputs = reasoner.answer(images, [normalise_request(request) for request in requests])
    return [(output.text, output.frame) for output in outputs]


def _is_same(expected: Answer, found: Answer, tolerance: float) -> bool:
    if (expected.problem is None) != (found.problem is None):
        return False
    if len(expected.objects) != len(found.objects):
        return False
    return all(
        abs(a - b) <= tolerance
        for one, other in zip(expected.objects, found.objects, strict=True)
        for a, b in zip(one.box.as_tuple(), other.box.as_tuple(), strict=True)
    )


def _small_png(image: Image.Image) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    stream = BytesIO()
    small.save(stream, "PNG")
    return stream.getvalue()
