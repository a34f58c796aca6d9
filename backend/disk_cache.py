"""A bounded folder of files by key, shared by processes: whole files or none, the stalest go first.

A file holds when it was fetched, the hash of its content, and the content. It appears under its
name by a rename; what a crash or a full disk left half-written is not found or does not match
its hash, and counts as missing. Nothing here fails but to be slower: the cache may be deleted at
any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_HEAD: Final = struct.Struct("<4sd32s")
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_MAGIC: Final = b"SZC1"
_SUFFIX: Final = ".part"
_ABANDONED_S: Final = 3600.0
_MARGIN: Final = 16
"""One part in so many is what may be written between two looks at the whole folder."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the cache.

    Args:
        data: Its content.
        age_s: Seconds since it was fetched.
    """

    data: bytes
    age_s: float


class DiskCache:
    """Use it from any thread and any number of processes.

    Args:
        folder: Its files; made when needed, readable by nobody else.
        max_bytes: How much they may take together. A process looks after it has written a
            sixteenth of that, so each process may go over it by as much for a moment.
        now: Seconds since 1970.
    """

    def __init__(self, folder: Path, max_bytes: int, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._now = now
        self._lock = threading.Lock()
        self._unseen: int | None = None  # bytes written since the last look; None before the first

    def get(self, key: str) -> Kept | None:
        """What was put under a key; None if that is gone, damaged, or never was."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if len(content) < _HEAD.size:
            return None
        magic, fetched_at, digest = _HEAD.unpack_from(content)
        data = content[_HEAD.size :]
        if magic != _MAGIC or hashlib.sha256(data).digest() != digest:
            _log.warning("cache.damaged", extra={"fields": {"file": path.name}})
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path, (self._now(), self._now()))
        return Kept(data, self._now() - fetched_at)

    def put(self, key: str, data: bytes) -> None:
        """Keep a file, if there is room for it at all; others may have to go."""
        size = _HEAD.size + len(data)
        if size > self._max_bytes // 2:
            return
        path = self._path(key)
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{_SUFFIX}")
        head = _HEAD.pack(_MAGIC, self._now(), hashlib.sha256(data).digest())
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(part, _NEW, 0o600), "wb") as file:
                file.write(head)
                file.write(data)
            os.utime(part, (self._now(), self._now()))
            part.replace(path)
        except OSError as error:
            _log.warning("cache.not_written", extra={"fields": {"reason": error.strerror}})
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            return
        with self._lock:
            known = self._unseen is not None
            self._unseen = (self._unseen or 0) + size
            is_time = not known or self._unseen >= self._max_bytes // _MARGIN
            if is_time:
                self._unseen = 0
        if is_time:
            self._make_room()

    def _path(self, key: str) -> Path:
        # Addresses may hold signatures: only their hash is on the disk.
        return self._folder / hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:40]

    def _make_room(self) -> None:
        """Remove what was used longest ago, until a process more has room for its margin."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        room = self._max_bytes - self._max_bytes // _MARGIN
        for used_at, size, path in files:
            is_abandoned = path.name.endswith(_SUFFIX) and used_at < self._now() - _ABANDONED_S
            if total <= room and not is_abandoned:
                continue
            if path.name.endswith(_SUFFIX) and not is_abandoned:
                continue  # somebody is writing it
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    yield found.st_mtime, found.st_size, Path(entry.path)
