"""An append-only spool on disk: what is acknowledged is never lost, whatever dies.

```python
spool = Spool("data/spool")
seq = spool.append(body)              # returns only when the record is on the disk

while not stopping:                   # the drainer, a thread of the same process
    if spool.wait(timeout_s=1.0):
        records = spool.read()
        hand_over(records)            # must bear to see a record again after a crash
        spool.acknowledge(records[-1].seq)
```

One process has a spool open: it appends and drains, with as many threads as it likes. Other
processes get a clear error, and may look at it with `survey`. After a fork the child may not
use it. Records are delivered at least once and in order of their numbers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from segzero_ml.errors import ConfigError, SpoolError, SpoolFullError
from training_hooks.spool_append import Appender
from training_hooks.spool_commit import GroupCommit
from training_hooks.spool_disk import (
    NO_ROOM_REMEDY,
    Cursor,
    CursorState,
    FolderLock,
    make_folder,
    read_cursor,
    translated,
)
from training_hooks.spool_frames import HEADER_BYTES, LONGEST_PAYLOAD, Frame, Record
from training_hooks.spool_index import Index
from training_hooks.spool_segments import (
    Mark,
    Quarantine,
    list_segments,
    quarantined_names,
    recover,
)

__all__ = ["Record", "Spool", "SpoolStats", "SpoolSurvey", "survey"]

MAX_BYTES: Final = 1 << 30
SEGMENT_BYTES: Final = 16 << 20
READ_BYTES: Final = 16 << 20


@dataclass(frozen=True)
class SpoolSurvey:
    """What lies in a spool.

    Attributes:
        depth: Records that are not acknowledged.
        bytes: Size of the segments on disk, in bytes.
        oldest_age_s: Seconds since the oldest of them was appended; None if there is none.
        quarantined: Damaged places found, ever; more than 0 deserves a look.
    """

    depth: int
    bytes: int
    oldest_age_s: float | None
    quarantined: int


@dataclass(frozen=True)
class SpoolStats(SpoolSurvey):
    """What lies in an open spool, and how it does.

    Attributes:
        full: Alarm: the last append was refused for want of room, and none was freed since.
        refused: Appends that failed since the spool was opened, for whatever reason.
        last_seq: The highest number that is durable; 0 before the first.
        acknowledged_seq: The cursor.
    """

    full: bool
    refused: int
    last_seq: int
    acknowledged_seq: int


class Spool:
    """A spool, open for appending and draining.

    Args:
        folder: Its folder; created if missing. Local disk, not a network share.
        max_bytes: Most bytes its segments may take up.
        segment_bytes: Size at which a new segment is begun; consumed segments are deleted
            whole. A longer record gets a segment to itself.
        clock: Seconds since 1970.

    Raises:
        ConfigError: The sizes make no sense.
        SpoolError: The folder cannot be used, or is in use.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        max_bytes: int = MAX_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not HEADER_BYTES < segment_bytes <= max_bytes:
            raise ConfigError(
                f"A spool of {max_bytes} bytes cannot have segments of {segment_bytes}.",
                "Give the spool more bytes than one segment, and a segment more than one record.",
            )
        self._folder, self._clock = Path(folder), clock
        self._process = os.getpid()
        self._closed = False
        with ExitStack() as resources, translated(f"be opened in {self._folder}"):
            make_folder(self._folder)
            resources.enter_context(FolderLock(self._folder))
            self._cursor = resources.enter_context(Cursor(self._folder))
            quarantine = Quarantine(self._folder)
            segments = recover(self._folder, self._cursor, quarantine)
            self._resources = resources.pop_all()
        self._index = Index(segments, self._cursor.state.acknowledged, quarantine)
        self._appender = Appender(
            self._folder,
            self._index,
            self._cursor.state.used + 1,
            max_bytes=max_bytes,
            segment_bytes=segment_bytes,
            clock=clock,
        )
        self._group = GroupCommit(self._appender.commit)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish the appends under way, accept no more, and free the folder."""
        self._check_process()
        self._group.close()
        with self._index.reading:
            if not self._closed:
                self._closed = True
                self._appender.finish()
                self._resources.close()
        with self._index.changed:
            self._index.changed.notify_all()

    def append(self, payload: bytes) -> int:
        """Keep a payload; threads that append at once share an fsync.

        Args:
            payload: Less than 4 GiB; UTF-8 is best, see `spool_frames`.

        Returns:
            Its sequence number, once it is durable. Numbers rise and are never used twice.

        Raises:
            SpoolFullError: There is no room on the disk or in the spool; nothing was kept.
            SpoolError: It could not be made durable (after a failing fsync it may still turn up
                at the next start), or the spool is closed.
        """
        self._check_process()
        if len(payload) > LONGEST_PAYLOAD:
            raise SpoolFullError("A record of 4 GiB or more does not fit.", NO_ROOM_REMEDY)
        return self._group.submit(payload)

    def read(
        self, after_seq: int = 0, limit: int = 256, max_bytes: int = READ_BYTES
    ) -> list[Record]:
        """The oldest pending records after a number; empty if there is none.

        Args:
            after_seq: Only records with a higher number; acknowledged ones never come.
            limit: At most so many.
            max_bytes: Stop before the payloads exceed this; the first comes in any case.

        Raises:
            SpoolError: A file cannot be read, or the spool is closed.
        """
        records: list[Record] = []
        if limit < 1:
            return records
        size = 0
        with self._index.reading, translated("be read"):
            self._check_open()
            for segment, frame in self._index.frames_after(
                max(after_seq, self._index.acknowledged)
            ):
                size += len(frame.record.payload)
                if records and size > max_bytes:
                    break
                records.append(frame.record)
                segment.seen = Mark(frame.record.seq, frame.end)
                if len(records) == limit:
                    break
        return records

    def pending(self) -> Iterator[Record]:
        """All pending records in order, read as they are asked for.

        Raises:
            SpoolError: A file cannot be read, or the spool is closed.
        """
        records = self.read()
        while records:
            yield from records
            records = self.read(records[-1].seq)

    def wait(self, timeout_s: float) -> bool:
        """Wait until something is pending; False if nothing came or the spool was closed."""
        index = self._index
        with index.changed:
            index.changed.wait_for(lambda: self._closed or index.depth > 0, timeout_s)
            return not self._closed and index.depth > 0

    def acknowledge(self, seq: int) -> None:
        """Durably mark everything up to a number as handled; lower than before does nothing.

        Args:
            seq: The number of the last record that was handled.

        Raises:
            SpoolError: There is no such record yet, or the cursor cannot be written; then the
                records come again: acknowledge them again.
        """
        index = self._index
        with index.reading, translated("move its cursor"):
            self._check_open()
            if seq > index.last_seq:
                raise SpoolError(f"Record {seq} is not there yet: the last is {index.last_seq}.")
            if seq > index.acknowledged:
                self._cursor.move(CursorState(seq, self._appender.next_seq - 1))
                index.advance(seq)

    def stats(self) -> SpoolStats:
        """How the spool does at this moment.

        Raises:
            SpoolError: A file cannot be read, or the spool is closed.
        """
        oldest, index = self.read(limit=1), self._index
        with index.changed:
            return SpoolStats(
                depth=index.depth,
                bytes=index.used_bytes,
                oldest_age_s=_age(oldest[0], self._clock()) if oldest else None,
                quarantined=index.quarantine.count,
                full=index.full,
                refused=index.refused,
                last_seq=index.last_seq,
                acknowledged_seq=index.acknowledged,
            )

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise SpoolError(
                "A spool cannot be used in a forked process.", "Open it after the fork."
            )

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise SpoolError("The spool is closed.")


def survey(folder: Path | str, clock: Callable[[], float] = time.time) -> SpoolSurvey:
    """Look into a spool without opening it, from any process; changes nothing.

    Args:
        folder: The spool's folder; need not exist.
        clock: Seconds since 1970.

    Raises:
        SpoolError: The folder cannot be read.
    """
    folder = Path(folder)
    if not folder.exists():
        return SpoolSurvey(0, 0, None, 0)
    with translated(f"be surveyed in {folder}"):
        acknowledged = read_cursor(folder).acknowledged
        depth = size = 0
        oldest: Record | None = None
        for segment in list_segments(folder):
            try:
                segment.recount(acknowledged)
                if oldest is None and segment.pending:
                    items = segment.items_after(acknowledged)
                    oldest = next((item.record for item in items if isinstance(item, Frame)), None)
            except FileNotFoundError:  # consumed just now
                continue
            depth, size = depth + segment.pending, size + segment.size
        age = None if oldest is None else _age(oldest, clock())
        return SpoolSurvey(depth, size, age, len(quarantined_names(folder)))


def _age(record: Record, now: float) -> float:
    return max(0.0, now - record.appended_at)
