"""What the appending and the draining side of a spool share: the list of its segments."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from training_hooks.spool_frames import Frame, Lost
from training_hooks.spool_segments import Mark, Quarantine, Segment


class Index:
    """The segments of an open spool and what is counted about them.

    Two locks: `reading` is held while files are read or removed, `changed` while anything
    here changes, never during disk work of an append. `reading` is taken first.

    Args:
        segments: What was found at the start, oldest first.
        acknowledged: The cursor.
        quarantine: Takes what is damaged.

    Attributes:
        segments: Oldest first.
        active: The one being written, once it holds a record; never removed.
        acknowledged: Records up to this number are handled.
        last_seq: The highest number that is durable.
        full: The last append was refused for want of room, and none was freed since.
        refused: Appends that failed.
        quarantine: Takes what is damaged.
    """

    def __init__(self, segments: list[Segment], acknowledged: int, quarantine: Quarantine) -> None:
        self.reading = threading.Lock()
        self.changed = threading.Condition()
        self.segments = segments
        self.active: Segment | None = None
        self.acknowledged = acknowledged
        self.last_seq = segments[-1].last_seq if segments else acknowledged
        self.full = False
        self.refused = 0
        self.quarantine = quarantine

    @property
    def depth(self) -> int:
        """Records that are not acknowledged."""
        return sum(segment.pending for segment in self.segments)

    @property
    def used_bytes(self) -> int:
        """Size of all segments."""
        return sum(segment.size for segment in self.segments)

    def frames_after(self, seq: int) -> Iterator[tuple[Segment, Frame]]:
        """Readable frames with a higher number; sets aside the damage on the way.

        `reading` must be held.
        """
        with self.changed:
            segments = [each for each in self.segments if each.last_seq > seq]
        for segment in segments:
            for item in segment.items_after(seq):
                if isinstance(item, Lost):
                    self._set_aside(segment, item)
                elif item.record.seq > seq:
                    yield segment, item

    def advance(self, seq: int) -> None:
        """Records up to `seq` are handled; removes what is consumed. `reading` must be held."""
        self.acknowledged = seq
        with self.changed:
            for segment in self.segments:
                if segment.last_seq <= seq:
                    segment.pending, segment.done = 0, Mark(segment.last_seq, segment.size)
            partly = [each for each in self.segments if each.first_seq <= seq < each.last_seq]
        for segment in partly:  # one at most
            self._count_off(segment, seq)
        self.retire()

    def retire(self) -> None:
        """Remove the segments that are wholly consumed. `reading` must be held."""
        with self.changed:
            gone = [
                each
                for each in self.segments
                if each is not self.active and each.last_seq <= self.acknowledged
            ]
            self.segments = [each for each in self.segments if each not in gone]
            if gone:
                self.full = False
        for segment in gone:
            self.quarantine.retire(segment)

    def _count_off(self, segment: Segment, seq: int) -> None:
        passed, done = 0, segment.done
        for item in segment.items_after(segment.done.seq):
            if isinstance(item, Frame):
                if item.record.seq > seq:
                    break
                passed, done = passed + 1, Mark(item.record.seq, item.end)
        with self.changed:
            segment.pending -= passed
            segment.done = done

    def _set_aside(self, segment: Segment, lost: Lost) -> None:
        """The disk lost something since it was written: keep the bytes, count afresh."""
        if lost.start not in segment.lost:
            self.quarantine.keep(segment, lost)
            with self.changed:
                segment.recount(self.acknowledged)
