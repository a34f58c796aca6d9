"""The damaged end of an append-only file: found, set aside and cut off.

Redis itself starts with a file that ends in the middle of a command. After a loss of power
the file may instead end in zeros or rubbish, and then Redis refuses to start. Cutting off
that end loses at most the last second's writes, which Label Studio still has.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from segzero_ml.errors import StoreError

LONGEST_TAIL: Final = 8 << 20
"""More damage than this, in bytes, is not the end of a file but a damaged file."""

_FOLDER: Final = "appendonlydir"
_MANIFEST: Final = "appendonly.aof.manifest"
_SINGLE_FILE: Final = "appendonly.aof"  # before Redis 7
_LONGEST_LINE: Final = 1024
_MOST_ARGUMENTS: Final = 10_000_000
_LONGEST_ARGUMENT: Final = 512 << 20  # Redis takes no longer value


@dataclass(frozen=True, slots=True)
class CutTail:
    """What was cut off.

    Args:
        file: The append-only file.
        saved: The bytes that were cut off.
        length: How many there were.
    """

    file: Path
    saved: Path
    length: int


def cut_damaged_tail(data: Path) -> CutTail | None:
    """Cut the newest append-only file of a stopped server after its last whole command.

    Args:
        data: The server's data folder.

    Returns:
        What was cut off; None where there is no file, no damage, or too much of it.

    Raises:
        StoreError: A file cannot be read or written.
    """
    try:
        file = _newest(data)
        if file is None:
            return None
        with file.open("r+b") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            good = end_of_last_command(stream)
            if not 0 < size - good <= LONGEST_TAIL:
                return None
            stream.seek(good)
            saved = _save(data, file.name, stream.read())
            stream.truncate(good)
            os.fsync(stream.fileno())
    except OSError as error:
        raise StoreError(
            f"The append-only file in {data} cannot be mended: {error}.",
            "Check the folder's permissions and the free space on its disk.",
        ) from error
    return CutTail(file, saved, size - good)


def end_of_last_command(stream: BinaryIO) -> int:
    r"""Offset right after the last whole command, in bytes from where the stream stands.

    The stream holds commands as Redis appends them: `*2\r\n$3\r\nDEL\r\n$1\r\nx\r\n`,
    and lines of remarks that begin with `#`.
    """
    good = start = stream.tell()
    while _skip_command(stream):
        good = stream.tell()
    return good - start


def _skip_command(stream: BinaryIO) -> bool:
    line = stream.readline(_LONGEST_LINE)
    if line.startswith(b"#"):
        return line.endswith(b"\r\n")
    arguments = _count(line, b"*", _MOST_ARGUMENTS)
    if not arguments:
        return False
    for _ in range(arguments):
        length = _count(stream.readline(_LONGEST_LINE), b"$", _LONGEST_ARGUMENT)
        if length is None:
            return False
        stream.seek(length, os.SEEK_CUR)
        if stream.read(2) != b"\r\n":
            return False
    return True


def _count(line: bytes, mark: bytes, most: int) -> int | None:
    digits = line[1:-2]
    if line[:1] != mark or line[-2:] != b"\r\n" or not digits.isdigit() or len(digits) > 10:
        return None
    count = int(digits)
    return count if count <= most else None


def _newest(data: Path) -> Path | None:
    """The file that the server appended to, if it holds nothing but commands."""
    manifest = data / _FOLDER / _MANIFEST
    if manifest.exists():
        names = _increments(manifest.read_text(encoding="utf-8", errors="replace"))
        file = manifest.parent / names[-1] if names else None
    else:
        file = data / _SINGLE_FILE
    if file is None or not file.is_file():
        return None
    with file.open("rb") as stream:
        # Anything else is a snapshot, which only the server can read.
        return file if stream.read(1) in (b"*", b"#", b"\0") else None


def _increments(manifest: str) -> list[str]:
    """Names of the files with commands, oldest first."""
    lines = [line.split() for line in manifest.splitlines()]
    return [
        words[1]
        for words in lines
        if len(words) >= 6 and words[0] == "file" and words[5] == "i" and "/" not in words[1]
    ]


def _save(data: Path, name: str, tail: bytes) -> Path:
    number = 1
    while (saved := data / f"damaged-{number}-{name}").exists():
        number += 1
    with saved.open("xb") as file:
        file.write(tail)
        file.flush()
        os.fsync(file.fileno())
    return saved
