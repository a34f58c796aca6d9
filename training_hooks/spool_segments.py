"""The files of a spool: what is in each, what is damaged, what is left after a crash.

```
FOLDER/00000000000000000001.seg   frames (see spool_frames), named by the first number
FOLDER/cursor                     the last acknowledged number
FOLDER/lock                       held by the process that has the spool open
FOLDER/quarantine/                damaged bytes, as <first number>-<offset>.bin
```
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from training_hooks.spool_disk import (
    Cursor,
    CursorState,
    make_folder,
    sync_folder,
    write_new_file,
)
from training_hooks.spool_frames import HEADER_BYTES, Frame, Lost, Read, scan

_log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"(\d{20})\.seg")


class Mark(NamedTuple):
    """All frames before `offset` are numbered `seq` or lower, all after it higher."""

    seq: int
    offset: int


@dataclass(eq=False)
class Segment:
    """One file of frames.

    Attributes:
        path: The file.
        first_seq: The number its name carries; no frame in it has a lower one.
        size: Bytes that are durable, from its start.
        last_seq: The highest number readable in it.
        pending: Readable records that are not acknowledged.
        done: Up to where it is acknowledged.
        seen: Up to where it was read last, so that reading on need not start over.
        lost: Offsets of damage that was reported.
        evidence: Damaged bytes could not be copied: keep the file itself.
    """

    path: Path
    first_seq: int
    size: int = 0
    last_seq: int = field(init=False)
    pending: int = 0
    done: Mark = field(init=False)
    seen: Mark = field(init=False)
    lost: set[int] = field(default_factory=set)
    evidence: bool = False

    def __post_init__(self) -> None:
        self.last_seq = self.first_seq - 1
        self.done = self.seen = Mark(self.first_seq - 1, 0)

    @classmethod
    def named(cls, folder: Path, first_seq: int) -> Segment:
        """The segment of a folder that starts with a number."""
        return cls(folder / f"{first_seq:020d}.seg", first_seq)

    def items_after(self, seq: int) -> Iterator[Frame | Lost]:
        """What lies behind the nearest mark; may begin with frames numbered `seq` or lower."""
        mark = self.seen if self.done.seq < self.seen.seq <= seq else self.done
        with self.path.open("rb") as file:
            yield from scan(_reader(file), mark.offset, self.size, mark.seq)

    def recount(self, acknowledged: int) -> list[Lost]:
        """Read it all, set `last_seq`, `pending` and `done`, and return what is lost."""
        lost: list[Lost] = []
        last_seq, done, pending = self.first_seq - 1, Mark(self.first_seq - 1, 0), 0
        with self.path.open("rb") as file:
            for item in scan(_reader(file), 0, self.size, self.first_seq - 1):
                if isinstance(item, Lost):
                    lost.append(item)
                    continue
                last_seq = item.record.seq
                if last_seq <= acknowledged:
                    done = Mark(last_seq, item.end)
                else:
                    pending += 1
        self.last_seq, self.done, self.pending = last_seq, done, pending
        return lost


class Quarantine:
    """Keeps damaged bytes for a person to look at, and counts them.

    A damaged place has one name, so that it is counted once however often it is met.

    Args:
        folder: The spool's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "quarantine"
        self._names = set(quarantined_names(folder))

    @property
    def count(self) -> int:
        """Damaged places so far, those of earlier processes included."""
        return len(self._names)

    def keep(self, segment: Segment, lost: Lost) -> None:
        """Copy damaged bytes aside; on failure mark the segment as evidence."""
        if lost.start in segment.lost:
            return
        segment.lost.add(lost.start)
        name = f"{segment.first_seq:020d}-{lost.start}.bin"
        if name in self._names:
            return
        self._names.add(name)
        _log.warning(
            "Damage in the spool: %d bytes at %d of %s are no record. They are kept in %s; the "
            "records around them are read. If this was a correction, a sync with Label Studio "
            "brings it back.",
            lost.end - lost.start,
            lost.start,
            segment.path.name,
            self._folder,
        )
        try:
            make_folder(self._folder)
            with segment.path.open("rb") as file:
                data = _reader(file)(lost.start, lost.end - lost.start)
            write_new_file(self._folder / name, data)
        except OSError as error:
            segment.evidence = True
            _log.warning("The damaged bytes could not be copied (%s): keeping the file.", error)

    def retire(self, segment: Segment) -> None:
        """Remove a consumed segment, or move it aside if it is evidence."""
        try:
            if segment.evidence:
                make_folder(self._folder)
                segment.path.rename(self._folder / segment.path.name)
            else:
                segment.path.unlink(missing_ok=True)
        except OSError as error:  # its records are acknowledged: only the space is lost
            _log.warning("The consumed spool file %s stays: %s", segment.path, error)


def quarantined_names(folder: Path) -> list[str]:
    """Names of what lies in the quarantine of a spool."""
    aside = folder / "quarantine"
    if not aside.is_dir():
        return []
    return [path.name for path in aside.iterdir() if path.suffix in (".bin", ".seg")]


def list_segments(folder: Path) -> list[Segment]:
    """The segments of a folder, oldest first, with their sizes and nothing read yet."""
    segments = []
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match:
            with suppress(FileNotFoundError):  # consumed just now, by the process that has it open
                segments.append(Segment(path, int(match[1]), size=path.stat().st_size))
    return sorted(segments, key=lambda segment: segment.first_seq)


def recover(folder: Path, cursor: Cursor, quarantine: Quarantine) -> list[Segment]:
    """Bring a spool's folder in order after whatever ended its last use.

    Torn ends are cut off, damaged bytes go to quarantine, consumed segments are removed, and
    the cursor remembers every number that may have been given out.

    Args:
        folder: The spool's folder; locked.
        cursor: The spool's cursor.
        quarantine: Takes what is damaged.

    Returns:
        The segments that hold pending records, oldest first.

    Raises:
        OSError: A file cannot be read or shortened, or the cursor not written.
    """
    segments, used = list_segments(folder), max(cursor.state)
    for segment in segments:
        lost = segment.recount(cursor.state.acknowledged)
        used = max(used, segment.last_seq + _numbers_in(lost))
        for each in lost:
            if each.torn:
                _cut(segment, each.start)
            else:
                quarantine.keep(segment, each)
    if used > cursor.state.used:
        cursor.move(CursorState(cursor.state.acknowledged, used))
    for segment in segments:
        if not segment.pending:
            quarantine.retire(segment)
    return [segment for segment in segments if segment.pending]


def _numbers_in(lost: list[Lost]) -> int:
    """At most how many numbers the lost bytes can have used: they are not given out again."""
    return sum(1 if each.torn else (each.end - each.start) // HEADER_BYTES + 1 for each in lost)


def _cut(segment: Segment, size: int) -> None:
    _log.info(
        "Cutting %d bytes of an unfinished write off %s.", segment.size - size, segment.path.name
    )
    with segment.path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())
    sync_folder(segment.path.parent)
    segment.size = size


def _reader(file: BinaryIO) -> Read:
    fd = file.fileno()
    return lambda offset, length: _read_all(fd, offset, length)


def _read_all(fd: int, offset: int, length: int) -> bytes:
    """Up to `length` bytes; fewer only where the file ends."""
    data = os.pread(fd, length, offset)
    while 0 < len(data) < length:  # one read may return less than the rest of the file
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
