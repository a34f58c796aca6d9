"""Files that are whole or not there at all, also after a crash of the machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Final

_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700
_CHUNK: Final = 1 << 20


def sync_folder(folder: Path) -> None:
    """Make creations and renames in a folder durable.

    Raises:
        OSError: The folder cannot be opened or synced.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Durably create a folder and those above it, readable by nobody else.

    Raises:
        OSError: One of them cannot be created.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        sync_folder(each.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file down to the disk; its name is durable once its folder is synced.

    Raises:
        OSError: It could not be written as a whole.
    """
    with _create(path) as file:
        file.write(data)
        _flush(file)


def copy_synced(source: Path, target: Path) -> None:
    """Copy a file's bytes down to the disk; see `write_synced`.

    Raises:
        OSError: It could not be read or written as a whole.
    """
    with source.open("rb") as original, _create(target) as file:
        while chunk := original.read(_CHUNK):
            file.write(chunk)
        _flush(file)


def replace_file(path: Path, data: bytes) -> None:
    """Give a file new content, durably: whoever looks sees the old or the new one.

    Raises:
        OSError: It could not be written; the old content is still there.
    """
    draft = path.with_name(f"{path.name}.tmp")
    try:
        write_synced(draft, data)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _create(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, _PRIVATE_FILE), "wb")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
