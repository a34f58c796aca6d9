"""Label Studio's run-length encoding of brush masks, written fast and read safely.

The encoding is a stream of bits, most significant first, over a row-major RGBA image:

```
header   32 bits  number of values, height * width * 4
          5 bits  word size - 1: the bits of one value, always 8 here
       4 * 4 bits  the four length sizes - 1: 3, 4, 8 and 16 bits
packets   1 bit   1: a run of one value; 0: as many single values
          2 bits  which of the four length sizes follows
     3..16 bits   number of values - 1
          8 bits  the value of the run, or each single value
```

A mask of this project is the same byte in all four channels: 255 inside, 0 outside.
Masks that people draw have smooth edges, so that reading takes the alpha channel above 127.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from segzero_ml.errors import MaskError
from segzero_ml.masks import MAX_MASK_PIXELS
from segzero_ml.types import BoolMask

_AXES: Final = 2
_CHANNELS: Final = 4
_WORD_BITS: Final = 8
_LENGTH_BITS: Final = np.array([3, 4, 8, 16])
_HEADER_BITS: Final = 32 + 5 + 4 * 4
_LONGEST_RUN: Final = 1 << 16
_THRESHOLD: Final = 127
_SLACK_BYTES: Final = 8
_MAX_BYTES_A_VALUE: Final = 4  # a packet for one value takes at most 27 bits
_REMEDY: Final = "The brush region is damaged; erase and draw it again."


def encode_rle(mask: BoolMask) -> list[int]:
    """Encode a mask as Label Studio's brush RLE.

    Args:
        mask: bool, shape (height, width).

    Returns:
        The bytes, each in 0..255.

    Raises:
        MaskError: The mask is not a two-dimensional array of bool, is empty, or has so many
            pixels that the encoding cannot count them.
    """
    if mask.ndim != _AXES or mask.dtype != np.bool_ or mask.size == 0:
        raise MaskError(f"A mask must be bool (height, width), not {mask.dtype} {mask.shape}.")
    if mask.size * _CHANNELS >= 1 << 32:
        raise MaskError(f"A mask of {mask.size} pixels is too large for a brush region.")
    lengths, values = _runs(mask)
    sizes = np.searchsorted([8, 16, 256], lengths)  # index of the shortest size that fits
    length_bits = _LENGTH_BITS[sizes]
    packets = (4 + sizes) << length_bits | (lengths - 1)  # run bit and size, then the length
    packets = packets << _WORD_BITS | values
    header = np.array([mask.size * _CHANNELS, _WORD_BITS - 1, *(_LENGTH_BITS - 1)])
    words = np.concatenate([header, packets])
    bits = np.concatenate([[32, 5, 4, 4, 4, 4], 3 + length_bits + _WORD_BITS])
    encoded: list[int] = _pack(words, bits).tolist()
    return encoded


def decode_rle(rle: object, height: int, width: int) -> BoolMask:
    """Decode a brush region that may come from anywhere.

    The declared number of values is checked before anything is allocated for it.

    Args:
        rle: What the region holds under `rle`: a list of integers in 0..255.
        height: `original_height` of the region, in pixels.
        width: `original_width` of the region, in pixels.

    Returns:
        bool, shape (height, width): True where the alpha channel is above 127.

    Raises:
        MaskError: The size is not sensible, or the list is no encoding of such a mask.
    """
    if not 1 <= height * width <= MAX_MASK_PIXELS or height < 1:
        raise MaskError(f"A brush region cannot be {width} x {height} pixels.", _REMEDY)
    if not isinstance(rle, list):
        raise MaskError("The rle of a brush region must be a list of bytes.", _REMEDY)
    count = height * width * _CHANNELS
    length_bits = _read_header(_as_bytes(rle[: _HEADER_BITS // 8 + 1]), count)
    if len(rle) > _MAX_BYTES_A_VALUE * count + _SLACK_BYTES:
        raise MaskError("The rle of a brush region is longer than its mask.", _REMEDY)
    mask = np.zeros(height * width, dtype=np.bool_)
    _fill(mask, _as_bytes(rle), length_bits, count)
    return mask.reshape(height, width)


def _runs(mask: BoolMask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lengths (in values, at most `_LONGEST_RUN`) and values of the runs of a mask."""
    flat = np.ascontiguousarray(mask).reshape(-1)
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], starts, [flat.size]])
    lengths = np.diff(edges) * _CHANNELS
    values = np.where(flat[edges[:-1]], 255, 0)
    pieces = -(-lengths // _LONGEST_RUN)
    last = np.cumsum(pieces) - 1
    split = np.full(int(last[-1]) + 1, _LONGEST_RUN, dtype=np.int64)
    split[last] = lengths - (pieces - 1) * _LONGEST_RUN
    return split, np.repeat(values, pieces)


def _pack(words: NDArray[np.int64], bits: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Write words of at most 32 bits one after the other, most significant bit first."""
    ends = np.cumsum(bits)
    starts = ends - bits
    window = words.astype(np.uint64) << (40 - starts % 8 - bits).astype(np.uint64)
    first = starts // 8
    packed = np.zeros(int(ends[-1] + 7) // 8 + 4, dtype=np.uint8)
    for byte in range(5):  # the bits of the words are disjoint, so adding is joining
        part = (window >> np.uint64(32 - 8 * byte)).astype(np.uint8)
        np.add.at(packed, first + byte, part)
    return packed[: int(ends[-1] + 7) // 8]


def _as_bytes(rle: list[object]) -> bytes:
    try:
        return bytes(rle)  # type: ignore[arg-type]  # refuses what is not an int in 0..255
    except (TypeError, ValueError):
        raise MaskError(
            "The rle of a brush region holds something that is not a byte.", _REMEDY
        ) from None


def _read_header(data: bytes, count: int) -> tuple[int, ...]:
    """Check the header against the expected count; returns the four length sizes."""
    if len(data) * 8 < _HEADER_BITS:
        raise MaskError("The rle of a brush region ends in its header.", _REMEDY)
    header = int.from_bytes(data, "big") >> (len(data) * 8 - _HEADER_BITS)
    declared, word_bits = header >> 21, (header >> 16 & 31) + 1
    if declared != count:
        raise MaskError(
            f"The rle of a brush region declares {declared} values, "
            f"but its image size makes {count}.",
            _REMEDY,
        )
    if word_bits != _WORD_BITS:
        raise MaskError(f"The rle of a brush region has words of {word_bits} bits.", _REMEDY)
    return tuple((header >> shift & 15) + 1 for shift in (12, 8, 4, 0))


def _fill(mask: BoolMask, data: bytes, length_bits: tuple[int, ...], count: int) -> None:
    """Read the packets and set the pixels whose alpha (every fourth value) is high."""
    padded = data + bytes(5)
    end = len(data) * 8
    position, done = _HEADER_BITS, 0
    while done < count:
        at = position >> 3
        window = int.from_bytes(padded[at : at + 5], "big") << (position & 7) & 0xFFFFFFFFFF
        size = length_bits[window >> 37 & 3]
        length = (window >> (37 - size) & ((1 << size) - 1)) + 1
        is_run = window >> 39
        first_value = position + 3 + size
        position = first_value + (_WORD_BITS if is_run else _WORD_BITS * length)
        until = done + length
        if position > end or until > count:
            raise MaskError("The rle of a brush region is cut off or too long.", _REMEDY)
        # The alpha of pixel k is value 4 k + 3, so values done..until hold the alphas of
        # the pixels done // 4 .. until // 4.
        if is_run:
            if window >> (29 - size) & 255 > _THRESHOLD:
                mask[done >> 2 : until >> 2] = True
        elif until >> 2 > done >> 2:
            skipped = first_value + _WORD_BITS * (3 - done % _CHANNELS)
            alphas = _every_fourth_byte(data, skipped, (until >> 2) - (done >> 2))
            mask[done >> 2 : until >> 2] = alphas > _THRESHOLD
        done = until
    if len(data) - (position + 7 >> 3) > _SLACK_BYTES:
        raise MaskError("The rle of a brush region goes on after its last value.", _REMEDY)


def _every_fourth_byte(data: bytes, bit: int, number: int) -> NDArray[np.uint8]:
    """`number` bytes, four bytes apart, the first one at any bit of `data`."""
    at, shift = bit >> 3, bit & 7
    span = np.frombuffer(data, np.uint8, _CHANNELS * (number - 1) + 1, at)[::_CHANNELS]
    if shift == 0:
        return span
    low = np.frombuffer(data, np.uint8, _CHANNELS * (number - 1) + 1, at + 1)[::_CHANNELS]
    return (span << np.uint8(shift)) | (low >> np.uint8(8 - shift))
