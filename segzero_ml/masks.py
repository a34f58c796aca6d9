"""Masks: COCO's compressed run lengths, overlap, and a mask's box and inner point.

A mask is a bool array of shape (height, width). Run lengths count column by column, first
the False pixels. Text that comes from outside is decoded here in numpy and checked before
anything of the mask's size is allocated: pycocotools trusts its input.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy import ndimage

from segzero_ml.errors import MaskError
from segzero_ml.types import BoolMask, Box, ImageSize, Point, Rle

MAX_MASK_PIXELS = 100_000_000
"""Masks with more pixels than this are refused."""

MAX_COUNTS_LENGTH = 16_000_000
"""Run-length text longer than this is refused, whatever the mask's size."""

_FIRST_CHARACTER = 48
_MORE = 0x20  # the number goes on in the next character
_SIGN = 0x10  # in a number's last character: it is negative
_CHUNK_BITS = 5
_MAX_CHUNKS = 7  # 35 bits, more than any count of a mask within MAX_MASK_PIXELS needs


def encode(mask: BoolMask) -> Rle:
    """Write a mask as COCO's compressed run lengths, exactly as pycocotools does.

    Args:
        mask: Bool, shape (height, width), both at least 1.

    Raises:
        MaskError: Not a two-dimensional bool array, or without pixels.
    """
    _check_mask(mask)
    height, width = mask.shape
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Rle(height=height, width=width, counts=encoded["counts"].decode("ascii"))


def decode(rle: Rle) -> BoolMask:
    """Read COCO's compressed run lengths; safe on hostile text.

    Returns:
        Bool, shape (rle.height, rle.width), C-contiguous and writable.

    Raises:
        MaskError: The mask or its text is too large, a character is not of the encoding, a
            number is cut off, negative or too large, or the runs do not fill the mask.
    """
    pixels = rle.height * rle.width
    if pixels > MAX_MASK_PIXELS:
        raise MaskError(
            f"A mask of {rle.width} x {rle.height} pixels is over the limit of "
            f"{MAX_MASK_PIXELS:,} pixels."
        )
    # No mask needs more: a number of k characters stands for runs far longer than k.
    if len(rle.counts) > min(pixels + 2, MAX_COUNTS_LENGTH):
        raise MaskError(f"The counts are too long for {rle.width} x {rle.height} pixels.")
    runs = _runs(rle.counts)
    if runs.size and int(runs.min()) < 0:
        raise MaskError("The counts contain a negative run.")
    # Compared one by one first, so that the sum cannot overflow.
    if (runs.size and int(runs.max()) > pixels) or int(runs.sum()) != pixels:
        raise MaskError(f"The runs do not fill {rle.width} x {rle.height} pixels exactly.")
    inside = np.zeros(runs.size, dtype=np.bool_)
    inside[1::2] = True
    columns = np.repeat(inside, runs).reshape(rle.width, rle.height)
    return np.ascontiguousarray(columns.T)


def _runs(counts: str) -> NDArray[np.int64]:
    """Numbers of the text, int64; from the fourth on each is a difference to two before."""
    codes = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64)
    codes -= _FIRST_CHARACTER
    if not codes.size:
        return codes
    if int(codes.min()) < 0 or int(codes.max()) > 0x3F:
        raise MaskError("The counts contain a character that is not of the encoding.")
    last = np.flatnonzero((codes & _MORE) == 0)
    if not last.size or last[-1] != codes.size - 1:
        raise MaskError("The counts end in the middle of a number.")
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    if int(lengths.max()) > _MAX_CHUNKS:
        raise MaskError("The counts contain a number that is too large.")
    shifts = _CHUNK_BITS * (np.arange(codes.size) - np.repeat(first, lengths))
    numbers = np.add.reduceat((codes & 0x1F) << shifts, first)
    negative = (codes[last] & _SIGN) != 0
    numbers -= np.where(negative, np.int64(1) << (_CHUNK_BITS * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def to_json(rle: Rle) -> dict[str, Any]:
    """Return COCO's JSON form: `{"size": [height, width], "counts": text}`."""
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def from_json(value: object) -> Rle:
    """Read COCO's JSON form; the text itself is checked by `decode`.

    Raises:
        MaskError: Not `{"size": [height, width], "counts": text}`.
    """
    if not isinstance(value, dict) or set(value) != {"size", "counts"}:
        raise MaskError('A mask must be {"size": [height, width], "counts": text}.')
    size, counts = value["size"], value["counts"]
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(isinstance(side, int) and not isinstance(side, bool) for side in size)
    ):
        raise MaskError("The size of a mask must be two whole numbers: [height, width].")
    if not isinstance(counts, str):
        raise MaskError(
            "The counts of a mask must be text.",
            "Compress a list of runs with pycocotools.mask.frPyObjects.",
        )
    return Rle(height=size[0], width=size[1], counts=counts)


def iou(a: BoolMask, b: BoolMask) -> float:
    """Intersection over union of two masks, in [0, 1]; two empty masks agree: 1.

    Raises:
        MaskError: The masks are not of one shape.
    """
    _check_mask(a)
    _check_mask(b)
    if a.shape != b.shape:
        raise MaskError(f"Masks of the shapes {a.shape} and {b.shape} cannot be compared.")
    joined = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / joined if joined else 1.0


def union(masks: Iterable[BoolMask], size: ImageSize) -> BoolMask:
    """Join masks into a new one; without masks it is empty.

    Args:
        masks: Bool, each of shape (size.height, size.width).
        size: Size of the image.

    Raises:
        MaskError: A mask is not of this size.
    """
    joined = np.zeros((size.height, size.width), dtype=np.bool_)
    for mask in masks:
        _check_mask(mask)
        if mask.shape != joined.shape:
            raise MaskError(
                f"A mask of {mask.shape[1]} x {mask.shape[0]} pixels does not fit an image of "
                f"{size.width} x {size.height}."
            )
        joined |= mask
    return joined


def bounding_box_px(mask: BoolMask) -> Box | None:
    """Smallest box around a mask in pixel edges: `x2` is the last column plus 1.

    Returns:
        The box, or None when the mask is empty.
    """
    window = _window(mask)
    if window is None:
        return None
    rows, columns = window
    return Box(columns.start, rows.start, columns.stop, rows.stop)


def inner_point_px(mask: BoolMask) -> Point | None:
    """Point deepest inside a mask: the centre of the pixel furthest from its edge.

    The image's border counts as an edge. Of equally deep pixels the leftmost is taken, of
    these the topmost.

    Returns:
        The point in pixels, on the mask; None when the mask is empty.
    """
    window = _window(mask)
    if window is None:
        return None
    rows, columns = window
    depth = ndimage.distance_transform_edt(np.pad(mask[window], 1))[1:-1, 1:-1]
    column, row = np.unravel_index(int(np.argmax(depth.T)), depth.T.shape)
    return Point(columns.start + int(column) + 0.5, rows.start + int(row) + 0.5)


def _window(mask: BoolMask) -> tuple[slice, slice] | None:
    """Rows and columns that a mask occupies; None when it is empty."""
    _check_mask(mask)
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    return (
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )


def _check_mask(mask: BoolMask) -> None:
    if mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
        raise MaskError(
            f"A mask must be a bool array (height, width) with pixels, "
            f"not {mask.dtype} of shape {mask.shape}."
        )
