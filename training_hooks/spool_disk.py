"""What the spool asks of the disk: whole writes, a lock, a durable cursor, clear errors."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from segzero_ml.errors import SpoolError, SpoolFullError

_log = logging.getLogger(__name__)

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NO_ROOM_REMEDY: Final = (
    "Free disk space, let the queue drain, or allow the spool more; until then nothing is accepted."
)
PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700


def spool_error(error: OSError, doing: str) -> SpoolError:
    """The project's error for one of the operating system.

    Args:
        error: What the operating system said.
        doing: What was tried, to follow "The spool could not".
    """
    reason = error.strerror or str(error)
    translated: SpoolError
    if error.errno in _NO_ROOM:
        translated = SpoolFullError(f"The spool could not {doing}: {reason}.", NO_ROOM_REMEDY)
    else:
        remedy = "Check the disk and the permissions of the spool's folder."
        translated = SpoolError(f"The spool could not {doing}: {reason}.", remedy)
    translated.__cause__ = error
    return translated


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turns an OSError within into a SpoolError or SpoolFullError."""
    try:
        yield
    except OSError as error:
        raise spool_error(error, doing) from error


def write_at(fd: int, data: bytes, offset: int) -> tuple[int, OSError | None]:
    """Write at an offset; returns how many bytes went in, and what stopped the rest."""
    view = memoryview(data)
    written = 0
    while written < len(data):
        try:
            written += os.pwrite(fd, view[written:], offset + written)
        except OSError as error:
            return written, error
    return written, None


def sync_folder(folder: Path) -> None:
    """Make creations and renames in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Durably create a folder and those above it, readable by nobody else."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        sync_folder(each.parent)


def write_new_file(path: Path, data: bytes) -> None:
    """Create a file durably, whole or not at all.

    Raises:
        OSError: It could not be written; nothing of it is left.
    """
    draft = path.with_name(path.name + ".tmp")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    try:
        _, error = write_at(fd, data, 0)
        if error is not None:
            raise error
        os.fsync(fd)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    sync_folder(path.parent)


class FolderLock:
    """A lock that one process holds while it has a spool open; the kernel frees it at its end.

    Args:
        folder: The spool's folder.

    Raises:
        SpoolError: Someone else holds it.
        OSError: The folder cannot be locked.
    """

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            if not isinstance(error, BlockingIOError):
                raise
            raise SpoolError(
                f"The spool in {folder} is open already, here or in another process.",
                "Stop that process, or give this one a folder of its own.",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)


_SLOT: Final = struct.Struct("<4sQQ")
_SLOT_CHECK: Final = struct.Struct("<I")
_SLOT_BYTES: Final = _SLOT.size + _SLOT_CHECK.size
_SLOT_MAGIC: Final = b"SZC\x01"
_PAGE: Final = 4096


class CursorState(NamedTuple):
    """What the cursor file says.

    Attributes:
        acknowledged: Records up to this number are handled.
        used: No number up to this one is given out again.
    """

    acknowledged: int
    used: int


class Cursor:
    """How far a spool is consumed, in a file of fixed size.

    It has two slots on pages of their own, overwritten in turn, so that a write cut short
    spoils only the older one. Overwriting needs no new disk blocks: a full disk can still be
    drained, where a new file put in place by a rename could not be written any more.

    Args:
        folder: The spool's folder.

    Raises:
        OSError: The file cannot be created or read.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "cursor"
        if not path.exists():
            write_new_file(path, _slot(CursorState(0, 0)).ljust(2 * _PAGE, b"\0"))
        self.state, self._slot = _read_slots(path)
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def move(self, state: CursorState) -> None:
        """Durably set the cursor.

        Raises:
            OSError: It could not be written; the cursor stays where it was.
        """
        slot = 1 - self._slot
        _, error = write_at(self._fd, _slot(state), slot * _PAGE)
        if error is not None:
            raise error
        os.fsync(self._fd)
        self.state, self._slot = state, slot


def read_cursor(folder: Path) -> CursorState:
    """The cursor of a spool that may be open elsewhere; zeros if there is none."""
    try:
        return _read_slots(folder / "cursor")[0]
    except FileNotFoundError:
        return CursorState(0, 0)


def _slot(state: CursorState) -> bytes:
    fields = _SLOT.pack(_SLOT_MAGIC, *state)
    return fields + _SLOT_CHECK.pack(zlib.crc32(fields))


def _read_slots(path: Path) -> tuple[CursorState, int]:
    """The furthest good state and the index of its slot."""
    data = path.read_bytes()
    found = []
    for index in (0, 1):
        slot = data[index * _PAGE : index * _PAGE + _SLOT_BYTES]
        if len(slot) == _SLOT_BYTES:
            state = CursorState(*_SLOT.unpack_from(slot)[1:])
            if slot == _slot(state):
                found.append((state, index))
    if not found:
        _log.warning("The cursor %s is damaged: everything in the spool is read again.", path)
    return max(found, default=(CursorState(0, 0), 0))
