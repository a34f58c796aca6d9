"""Writes groups of frames to the newest segment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from training_hooks.spool_disk import PRIVATE_FILE, sync_folder, write_at
from training_hooks.spool_segments import Segment


class SegmentWriter:
    """Writes to one segment until it is finished, then begins another; for one thread.

    After any error the caller finishes the segment, for what an fsync that failed has left on the
    disk is not known: nothing more is put behind it.

    Args:
        folder: The spool's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._dirty = False
        self.segment: Segment | None = None

    @property
    def size(self) -> int:
        """Bytes in the segment being written."""
        return self.segment.size if self.segment is not None else 0

    def write(self, first_seq: int, frames: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Append frames with one write and one fsync; `settle` must follow.

        Args:
            first_seq: The number of the first of them.
            frames: In order.

        Returns:
            How many of them are durable, and what went wrong with the others.
        """
        if self._dirty:  # an exception (Ctrl-C, no memory) came in the middle of a write
            self.finish()
        try:
            segment = self.segment or self._begin(first_seq)
        except OSError as error:
            return 0, error
        self._dirty = True
        written, refusal = write_at(self._fd, b"".join(frames), segment.size)
        count = _whole_frames(frames, written)
        try:
            if refusal is not None:
                os.ftruncate(self._fd, segment.size + sum(map(len, frames[:count])))
            os.fsync(self._fd)
        except OSError as failure:
            return 0, refusal or failure
        return count, refusal

    def settle(self, kept: int) -> None:
        """Count the bytes that were kept of the last write as part of the segment."""
        if self.segment is not None and kept:
            self.segment.size += kept
            self._dirty = False

    def finish(self) -> None:
        """Write no more to this segment; cuts off what a failed write may have left."""
        if self.segment is None:
            return
        segment, self.segment = self.segment, None
        with suppress(OSError):  # what cannot be cut off is sorted out at the next start
            if self._dirty:
                os.ftruncate(self._fd, segment.size)
            if segment.size == 0:
                segment.path.unlink()
        os.close(self._fd)
        self._fd, self._dirty = -1, False

    def _begin(self, first_seq: int) -> Segment:
        segment = Segment.named(self._folder, first_seq)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(segment.path, flags, PRIVATE_FILE)
        self.segment = segment
        sync_folder(self._folder)
        return segment


def _whole_frames(frames: Sequence[bytes], written: int) -> int:
    for count, frame in enumerate(frames):
        written -= len(frame)
        if written < 0:
            return count
    return len(frames)
