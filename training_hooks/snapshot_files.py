"""The files of snapshots: where they lie, how they come to be whole or not at all.

```
FOLDER/                   snapshots of one project
  split.json              salt and share that decide on which side an image is; never changes
  images/SHA256.png       every image that was ever in a snapshot, once
  ID/                     a snapshot; never changes
    examples.jsonl        an example a line
    left-out.jsonl        what was left out, and why
    manifest.json
    images/SHA256.png     hard links, so that the folder can be copied by itself
  RANDOM.tmp/             one that is being made
```
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from segzero_ml.checks import check_keys
from segzero_ml.durable import sync_folder, write_synced
from segzero_ml.errors import DatasetError, InputError
from training_hooks.snapshot_manifest import ID_DIGITS

EXAMPLES: Final = "examples.jsonl"
LEFT_OUT: Final = "left-out.jsonl"
MANIFEST: Final = "manifest.json"
IMAGES: Final = "images"

_SPLIT: Final = "split.json"
_DRAFT: Final = ".tmp"
_ABANDONED_S: Final = 24 * 3600
_IMAGE: Final = re.compile(rf"{IMAGES}/[0-9a-f]{{64}}\.[a-z]+")
_ID: Final = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn a failure of the disk into an error for the user.

    Raises:
        DatasetError: An `OSError` was raised within.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"The snapshot cannot be kept in {folder}: {error.strerror or error}.",
            "Check the disk's space and the folder's permissions.",
        ) from error


def snapshot_folders(folder: Path) -> tuple[Path, ...]:
    """Folders of the snapshots of a project, by name; whether they are whole is not looked at."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(one for one in folder.iterdir() if _ID.fullmatch(one.name)))


def fixed_split(folder: Path, salt: str, share: float) -> tuple[str, float]:
    """What decides on which side an image is: as it was fixed, or from now on as given.

    Args:
        folder: Of the project's snapshots.
        salt: To be fixed if nothing is yet.
        share: To be fixed if nothing is yet.

    Returns:
        (salt, share)

    Raises:
        DatasetError: What was fixed cannot be read.
        OSError: It cannot be kept.
    """
    found = known_split(folder)
    if found is None:
        put(folder / _SPLIT, json.dumps({"salt": salt, "share": share}).encode())
        sync_folder(folder)
    return found or (salt, share)


def known_split(folder: Path) -> tuple[str, float] | None:
    """The salt and the share that were fixed; None where nothing is yet.

    Args:
        folder: Of the project's snapshots.

    Raises:
        DatasetError: What was fixed cannot be read.
    """
    path = folder / _SPLIT
    try:
        read = check_keys(_SPLIT, json.loads(path.read_text("utf-8")), {"salt", "share"})
        return str(read["salt"]), float(read["share"])
    except FileNotFoundError:
        return None
    except (ValueError, InputError) as error:
        raise DatasetError(
            f"{path} cannot be read, so that nobody knows which images are held out.",
            f'Put it back: manifests of snapshots hold "salt" and "held_out_share". {error}',
        ) from error


def read_text(path: Path) -> str:
    """A file of a snapshot.

    Raises:
        DatasetError: It is missing or cannot be read.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read, so that there is no snapshot: {error}."
        ) from error


def hash_of(folder: Path, name: str) -> str | None:
    """SHA-256 of an image of a snapshot; None where it cannot be read, or lies elsewhere."""
    if not _IMAGE.fullmatch(name):
        return None
    try:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file of a draft, down to the disk.

    Raises:
        OSError: It cannot be written.
    """
    write_synced(path, "".join(f"{line}\n" for line in lines).encode())


def put(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there, also where others write it at the same time.

    Raises:
        OSError: It cannot be written.
    """
    new = path.with_name(f"{uuid.uuid4().hex}{_DRAFT}")
    try:
        write_synced(new, data)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def draft(folder: Path) -> Iterator[Path]:
    """A new folder to make a snapshot in; gone afterwards unless it was published.

    Raises:
        OSError: It cannot be made.
    """
    _remove_abandoned(folder)
    path = folder / f"{uuid.uuid4().hex}{_DRAFT}"
    path.mkdir(mode=0o700)
    (path / IMAGES).mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def publish(path: Path, name: str, is_whole: Callable[[Path], bool]) -> Path:
    """Give a complete draft its name, durably.

    Args:
        path: The draft.
        name: What it becomes.
        is_whole: Asked about a folder that has this name already: a whole one stays, and the
            draft is dropped; a damaged one gives way.

    Returns:
        The snapshot's folder.

    Raises:
        OSError: It cannot be done; what had the name still has it, or nothing does.
    """
    sync_folder(path / IMAGES)
    sync_folder(path)
    target = path.with_name(name)
    try:
        path.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        if is_whole(target):
            return target
        target.rename(path.with_name(f"{uuid.uuid4().hex}{_DRAFT}"))
        path.rename(target)
    sync_folder(target.parent)
    return target


def _remove_abandoned(folder: Path) -> None:
    """Drafts that nobody finishes: a process was killed."""
    for one in (*folder.glob(f"*{_DRAFT}"), *(folder / IMAGES).glob(f"*{_DRAFT}")):
        with suppress(FileNotFoundError):  # another process removes it too
            if time.time() - one.stat().st_mtime < _ABANDONED_S:
                continue
            if one.is_dir():
                shutil.rmtree(one, ignore_errors=True)
            else:
                one.unlink()
