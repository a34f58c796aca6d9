"""The appending side of a spool: which records go together into which segment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from segzero_ml.errors import SpoolFullError
from training_hooks.spool_commit import Ticket
from training_hooks.spool_disk import NO_ROOM_REMEDY, spool_error
from training_hooks.spool_frames import HEADER_BYTES, encode
from training_hooks.spool_index import Index
from training_hooks.spool_writer import SegmentWriter


class Appender:
    """Gives out numbers and writes records; used by one thread at a time.

    Args:
        folder: The spool's folder.
        index: The spool's index.
        next_seq: The first number to give out.
        max_bytes: Most bytes all segments may take up.
        segment_bytes: Size at which a new segment is begun.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        index: Index,
        next_seq: int,
        *,
        max_bytes: int,
        segment_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._index = index
        self._writer = SegmentWriter(folder)
        self._max_bytes, self._segment_bytes, self._clock = max_bytes, segment_bytes, clock
        self.next_seq = next_seq

    def commit(self, tickets: Sequence[Ticket]) -> None:
        """Make payloads durable; each ticket gets its number or its error."""
        waiting = deque(tickets)
        while waiting:
            group = self._next_group(waiting)
            if group:
                self._write(group)

    def finish(self) -> None:
        """Write no more to the segment at hand."""
        with self._index.changed:
            self._writer.finish()
            self._index.active = None

    def _next_group(self, waiting: deque[Ticket]) -> list[Ticket]:
        """What goes into one segment with one write; refuses what has no room."""
        group: list[Ticket] = []
        total = 0
        while waiting:
            length = HEADER_BYTES + len(waiting[0].payload)
            if not self._has_room(total + length):
                self._refuse(waiting.popleft())
                continue
            filled = self._writer.size + total
            if filled and filled + length > self._segment_bytes:
                if group:
                    break
                self.finish()
            group.append(waiting.popleft())
            total += length
        return group

    def _has_room(self, length: int) -> bool:
        index = self._index
        with index.changed:
            free = self._max_bytes - index.used_bytes
            active = index.active
        if length <= free or active is None or active.last_seq > index.acknowledged:
            return length <= free
        self.finish()  # the segment at hand is consumed: make room of it
        with index.reading:
            index.retire()
        return self._has_room(length)

    def _refuse(self, ticket: Ticket) -> None:
        ticket.error = SpoolFullError(
            f"The spool has no room for {len(ticket.payload)} bytes more: "
            f"it may take {self._max_bytes}.",
            NO_ROOM_REMEDY,
        )
        with self._index.changed:
            self._index.full = True
            self._index.refused += 1

    def _write(self, group: list[Ticket]) -> None:
        """Write a group; as much of it as is durable afterwards is a success."""
        first = self.next_seq
        self.next_seq += len(group)  # for good: a number of a failed write may be on the disk
        now = int(self._clock() * 1e9)
        frames = [encode(first + i, now, ticket.payload) for i, ticket in enumerate(group)]
        count, error = self._writer.write(first, frames)
        if count:
            self._add(first, frames[:count])
        for seq, ticket in enumerate(group[:count], first):
            ticket.seq = seq
        if error is not None:
            self._give_up(group[count:], error)

    def _add(self, first: int, frames: Sequence[bytes]) -> None:
        index, segment = self._index, self._writer.segment
        if segment is None:
            return
        with index.changed:
            if index.active is not segment:
                index.segments.append(segment)
                index.active = segment
            self._writer.settle(sum(map(len, frames)))
            segment.pending += len(frames)
            segment.last_seq = index.last_seq = first + len(frames) - 1
            index.full = False
            index.changed.notify_all()

    def _give_up(self, tickets: Sequence[Ticket], error: OSError) -> None:
        self.finish()
        for ticket in tickets:
            ticket.error = spool_error(error, "take a record")
        with self._index.changed:
            self._index.refused += len(tickets)
            if any(isinstance(ticket.error, SpoolFullError) for ticket in tickets):
                self._index.full = True
