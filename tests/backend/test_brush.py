"""Brush RLE: understood by Label Studio's own code both ways, and safe to read."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from label_studio_sdk.converter import brush
from numpy.typing import NDArray

from backend.brush import decode_rle, encode_rle
from segzero_ml.errors import MaskError
from segzero_ml.types import BoolMask

sdk: Any = brush  # without types

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)
MASKS = hnp.arrays(np.bool_, SHAPES)
LENGTH_BITS = (3, 4, 8, 16)


def write_stream(count: int, packets: Iterable[tuple[bool, int, list[int]]]) -> list[int]:
    """A stream written from the format's description: packets of (run?, size index, values)."""
    bits = f"{count:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in LENGTH_BITS)
    for is_run, size, values in packets:
        bits += f"{is_run:b}{size:02b}{len(values) - 1:0{LENGTH_BITS[size]}b}"
        bits += "".join(f"{value:08b}" for value in (values[:1] if is_run else values))
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def alpha_of(rle: list[int], height: int, width: int) -> NDArray[np.uint8]:
    """Alpha channel as Label Studio's SDK decodes it."""
    channels: NDArray[np.uint8] = sdk.decode_rle(rle).reshape(height, width, 4)
    return channels[:, :, 3]


@given(MASKS)
def test_own_encoding_is_that_of_label_studios_sdk(mask: BoolMask) -> None:
    ours, theirs = encode_rle(mask), sdk.mask2rle(mask.astype(np.uint8) * 255)
    assert ours == theirs[: len(ours)]
    assert theirs[len(ours) :] in ([], [0])  # it pads a full last byte with another


@given(MASKS)
def test_label_studios_sdk_reads_own_encoding(mask: BoolMask) -> None:
    assert np.array_equal(alpha_of(encode_rle(mask), *mask.shape) == 255, mask)


@given(MASKS)
def test_decoding_what_was_encoded_gives_the_mask_back(mask: BoolMask) -> None:
    assert np.array_equal(decode_rle(encode_rle(mask), *mask.shape), mask)


@given(hnp.arrays(np.uint8, SHAPES.map(lambda shape: (*shape, 4))))
def test_drawn_regions_with_soft_edges_are_cut_at_half_of_alpha(
    channels: NDArray[np.uint8],
) -> None:
    rle = sdk.encode_rle(channels.reshape(-1))
    height, width, _ = channels.shape
    assert np.array_equal(decode_rle(rle, height, width), channels[:, :, 3] > 127)


@given(st.data(), st.integers(1, 12), st.integers(1, 12))
def test_any_mixture_of_runs_and_single_values_is_read_as_label_studio_reads_it(
    data: st.DataObject, height: int, width: int
) -> None:
    count, packets = height * width * 4, []
    left = count
    while left:
        length = data.draw(st.integers(1, left))
        fitting = [i for i, bits in enumerate(LENGTH_BITS) if length <= 1 << bits]
        is_run = data.draw(st.booleans())
        number = 1 if is_run else length
        values = data.draw(st.lists(st.integers(0, 255), min_size=number, max_size=number))
        packets.append((is_run, data.draw(st.sampled_from(fitting)), values * (length // number)))
        left -= length
    rle = write_stream(count, packets)
    assert np.array_equal(decode_rle(rle, height, width), alpha_of(rle, height, width) > 127)


@pytest.mark.parametrize("run", [16383, 16384, 16385, 32768])
def test_runs_around_the_longest_packet_are_split(run: int) -> None:
    mask = np.arange(3 * run).reshape(3, run) // run == 1
    rle = encode_rle(mask)
    assert len(rle) <= len(sdk.mask2rle(mask.astype(np.uint8) * 255))
    assert np.array_equal(alpha_of(rle, 3, run) == 255, mask)
    assert np.array_equal(decode_rle(rle, 3, run), mask)


def test_mask_of_twelve_megapixels_is_quick_both_ways() -> None:
    rows, columns = np.ogrid[:3000, :4000]
    mask = (rows - 1500) ** 2 + (columns - 2000) ** 2 < 1200**2
    started = time.process_time()
    decoded = decode_rle(encode_rle(mask), 3000, 4000)
    assert time.process_time() - started < 1
    assert np.array_equal(decoded, mask)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((0, 4), dtype=np.bool_),
        np.zeros((2, 2), dtype=np.uint8),
        np.zeros((2, 2, 4), dtype=np.bool_),
    ],
)
def test_what_is_no_mask_is_not_encoded(mask: BoolMask) -> None:
    with pytest.raises(MaskError, match="must be bool"):
        encode_rle(mask)


GOOD = encode_rle(np.eye(8, dtype=np.bool_))
# One run packet of the longest kind, again and again: 54 KB that would fill 1 GB.
BOMB = write_stream(2**32 - 1, [(True, 3, [255] * 65536)]) + GOOD * 3000


@pytest.mark.parametrize(
    ("rle", "size", "problem"),
    [
        (GOOD, (8, 9), "declares 256 values"),
        (GOOD, (4, 8), "declares 256 values"),
        (BOMB, (8, 8), "declares 4294967295 values"),
        (GOOD, (10**6, 10**6), "cannot be"),
        (GOOD, (0, 8), "cannot be"),
        (GOOD, (-8, -8), "cannot be"),
        (GOOD[:-4], (8, 8), "cut off"),
        (GOOD[:7], (8, 8), "cut off"),
        (GOOD[:6], (8, 8), "ends in its header"),
        ([], (8, 8), "ends in its header"),
        (GOOD + [0] * 100, (8, 8), "goes on after"),
        (GOOD + [0] * 10_000_000, (8, 8), "longer than its mask"),
        (write_stream(256, [(True, 3, [1] * 300)]), (8, 8), "cut off or too long"),
        (write_stream(256, [(False, 3, [1] * 300)]), (8, 8), "cut off or too long"),
        ([0, 0, 1, 0, 0, *GOOD[5:]], (8, 8), "words of 1 bits"),
        ([float(byte) for byte in GOOD], (8, 8), "not a byte"),
        ([*GOOD[:-1], 256], (8, 8), "not a byte"),
        ([*GOOD[:-1], -1], (8, 8), "not a byte"),
        ([*GOOD[:-1], None], (8, 8), "not a byte"),
        ([*GOOD[:-1], "1"], (8, 8), "not a byte"),
        ([*GOOD[:-1], 10**100], (8, 8), "not a byte"),
        (10**12, (8, 8), "list of bytes"),
        ("x" * 64, (8, 8), "list of bytes"),
        (None, (8, 8), "list of bytes"),
        ({"0": 1}, (8, 8), "list of bytes"),
    ],
)
def test_hostile_region_is_refused_at_once(
    rle: object, size: tuple[int, int], problem: str
) -> None:
    started = time.process_time()
    with pytest.raises(MaskError, match=problem):
        decode_rle(rle, *size)
    assert time.process_time() - started < 0.05


@given(st.lists(st.integers(0, 255), max_size=200), st.integers(1, 30), st.integers(1, 30))
def test_any_bytes_are_a_mask_of_that_size_or_refused(
    tail: list[int], height: int, width: int
) -> None:
    header = write_stream(height * width * 4, [])[:6]
    try:
        mask = decode_rle(header + tail, height, width)
    except MaskError:
        return
    assert mask.shape == (height, width)
