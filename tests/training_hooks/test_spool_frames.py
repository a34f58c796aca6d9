"""Frames of the spool: nothing good is lost or invented, whatever the bytes look like."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from training_hooks.spool_frames import HEADER_BYTES, MAGIC, Frame, Lost, Record, encode, scan

# Texts, as webhooks are; hostile bytes have a test of their own.
PAYLOADS = st.lists(st.text(max_size=40).map(str.encode), min_size=1, max_size=6)


def frames_of(payloads: list[bytes]) -> list[bytes]:
    return [encode(i, i * 10**9, payload) for i, payload in enumerate(payloads, 1)]


def scan_bytes(data: bytes, floor: int = 0) -> list[Frame | Lost]:
    return list(scan(lambda at, length: data[at : at + length], 0, len(data), floor))


def records_in(data: bytes) -> list[Record]:
    return [item.record for item in scan_bytes(data) if isinstance(item, Frame)]


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_scanning_gives_back_what_was_encoded(payloads: list[bytes]) -> None:
    expected = [Record(i, float(i), payload) for i, payload in enumerate(payloads, 1)]
    assert records_in(b"".join(frames_of(payloads))) == expected


@settings(max_examples=30)
@given(PAYLOADS)
def test_cut_at_any_byte_the_whole_records_remain_and_the_rest_is_torn(
    payloads: list[bytes],
) -> None:
    frames = frames_of(payloads)
    data = b"".join(frames)
    ends = [sum(map(len, frames[: i + 1])) for i in range(len(frames))]
    for cut in range(len(data)):
        items = scan_bytes(data[:cut])
        whole = [end for end in ends if end <= cut]
        assert [item.end for item in items if isinstance(item, Frame)] == whole
        start = whole[-1] if whole else 0
        lost = [item for item in items if isinstance(item, Lost)]
        assert lost == ([Lost(start, cut, torn=True)] if cut > start else [])


@settings(max_examples=30)
@given(PAYLOADS, st.integers(1, 255))
def test_a_changed_byte_anywhere_costs_its_own_record_only(
    payloads: list[bytes], change: int
) -> None:
    frames = frames_of(payloads)
    data = b"".join(frames)
    records = records_in(data)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= change
        hit = next(i for i in range(len(frames)) if at < sum(map(len, frames[: i + 1])))
        items = scan_bytes(bytes(damaged))
        found = [item.record for item in items if isinstance(item, Frame)]
        assert found == records[:hit] + records[hit + 1 :]
        start = sum(map(len, frames[:hit]))
        lost = [item for item in items if isinstance(item, Lost)]
        assert lost == [Lost(start, start + len(frames[hit]), torn=False)]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=50),
            st.just(MAGIC),
            st.builds(encode, st.integers(0, 5), st.just(0), st.binary(max_size=9)),
        ),
        max_size=8,
    )
)
def test_any_bytes_are_accounted_for_without_gap_and_numbers_rise(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    items = scan_bytes(data)
    edges = [0, *(item.end for item in items)]
    assert [item.start for item in items] == edges[:-1]
    assert edges[-1] == len(data)
    numbers = [item.record.seq for item in items if isinstance(item, Frame)]
    assert numbers == sorted(set(numbers))


def test_a_record_between_two_stretches_of_noise_is_found() -> None:
    noise = MAGIC + b"noise" * 20
    items = scan_bytes(noise + encode(7, 0, b"here") + noise)
    assert [type(item) for item in items] == [Lost, Frame, Lost]
    assert records_in(noise + encode(7, 0, b"here")) == [Record(7, 0.0, b"here")]


def test_zeros_at_the_end_are_a_torn_write() -> None:
    data = encode(1, 0, b"a")
    assert scan_bytes(data + bytes(500))[1] == Lost(len(data), len(data) + 500, torn=True)


def test_a_record_that_was_there_before_is_not_taken_for_a_new_one() -> None:
    first, second = frames_of([b"a", b"b"])
    assert [type(item) for item in scan_bytes(second + first + second)] == [Frame, Lost]
    assert [type(item) for item in scan_bytes(first + second, floor=1)] == [Lost, Frame]


def test_a_record_of_no_bytes_is_a_record() -> None:
    assert records_in(encode(3, 0, b"")) == [Record(3, 0.0, b"")]
    assert len(encode(3, 0, b"")) == HEADER_BYTES
