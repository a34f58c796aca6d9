"""How one record lies on disk, and how records are found again in damaged bytes.

```
header   4 bytes  ff 53 5a 01
         4 bytes  length of the payload, in bytes     (integers are little-endian)
         8 bytes  sequence number, rising from frame to frame
         8 bytes  time of the append, nanoseconds since 1970
         4 bytes  CRC-32 of the payload
         4 bytes  CRC-32 of the 28 bytes before
payload  any bytes
```

The header has a checksum of its own, so that a damaged payload still tells where the next
frame starts, and so that a write cut short is told apart from damage. The byte ff occurs in
no UTF-8 text: a JSON payload cannot hold what looks like a frame.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

MAGIC: Final = b"\xffSZ\x01"
_FIELDS: Final = struct.Struct("<4sIQQI")
_CHECK: Final = struct.Struct("<I")
HEADER_BYTES: Final = _FIELDS.size + _CHECK.size
LONGEST_PAYLOAD: Final = (1 << 32) - 1

Read = Callable[[int, int], bytes]
"""`read(offset, length)`: up to `length` bytes from `offset`."""


class Record(NamedTuple):
    """One payload as it was appended.

    Attributes:
        seq: Sequence number, from 1, strictly rising; numbers may be left out.
        appended_at: Seconds since 1970 by the clock of the machine that appended it.
        payload: The bytes that were appended.
    """

    seq: int
    appended_at: float
    payload: bytes


class Frame(NamedTuple):
    """A good record and the bytes [start, end) it takes up."""

    record: Record
    start: int
    end: int


class Lost(NamedTuple):
    """Bytes [start, end) that hold no readable record.

    Attributes:
        start: First byte.
        end: Byte after the last.
        torn: They are a write that was cut short (a prefix of a frame, or zeros) at the very
            end, as a crash leaves it, rather than damage.
    """

    start: int
    end: int
    torn: bool


class _Header(NamedTuple):
    length: int
    seq: int
    time_ns: int
    payload_crc: int


def encode(seq: int, time_ns: int, payload: bytes) -> bytes:
    """The frame of a record.

    Args:
        seq: Sequence number, 1..2**64-1.
        time_ns: Time of the append, nanoseconds since 1970.
        payload: At most `LONGEST_PAYLOAD` bytes.
    """
    fields = _FIELDS.pack(MAGIC, len(payload), seq, time_ns, zlib.crc32(payload))
    return b"".join((fields, _CHECK.pack(zlib.crc32(fields)), payload))


def scan(read: Read, start: int, end: int, floor: int) -> Iterator[Frame | Lost]:
    """Everything in the bytes [start, end), in order and without a gap.

    Args:
        read: Reads from the bytes.
        start: Where a frame starts.
        end: Where the bytes end.
        floor: Frames numbered up to here are left-overs of something else: lost.
    """
    offset = start
    while offset < end:
        item = _next(read, offset, end, floor)
        if isinstance(item, Frame):
            floor = item.record.seq
        yield item
        offset = item.end


def _next(read: Read, offset: int, end: int, floor: int) -> Frame | Lost:
    if end - offset < HEADER_BYTES:
        return Lost(offset, end, torn=True)
    header = _header(read(offset, HEADER_BYTES), floor)
    if header is None:
        return _lost_until_next(read(offset, end - offset), offset, end, floor)
    stop = offset + HEADER_BYTES + header.length
    if stop > end:
        return Lost(offset, end, torn=True)
    payload = read(offset + HEADER_BYTES, header.length)
    if len(payload) != header.length or zlib.crc32(payload) != header.payload_crc:
        return Lost(offset, stop, torn=False)
    return Frame(Record(header.seq, header.time_ns / 1e9, payload), offset, stop)


def _header(data: bytes, floor: int) -> _Header | None:
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        return None
    fields = data[: _FIELDS.size]
    if _CHECK.unpack(data[_FIELDS.size : HEADER_BYTES])[0] != zlib.crc32(fields):
        return None
    header = _Header(*_FIELDS.unpack(fields)[1:])
    return header if header.seq > floor else None


def _lost_until_next(rest: bytes, offset: int, end: int, floor: int) -> Lost:
    """The lost bytes from `offset`, up to the next good header or the end."""
    if rest.count(0) == len(rest):  # a file system may lengthen a file before it fills it
        return Lost(offset, end, torn=True)
    at = rest.find(MAGIC, 1)
    while at != -1:
        if _header(rest[at : at + HEADER_BYTES], floor) is not None:
            return Lost(offset, offset + at, torn=False)
        at = rest.find(MAGIC, at + 1)
    return Lost(offset, end, torn=False)
