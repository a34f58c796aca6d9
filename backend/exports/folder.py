"""The folder of an export: complete or not there, and never somebody else's.

It is written as `FOLDER.part` and renamed at the end. What an export made carries a marker, the
file `.segzero-export` with its summary; only such folders are ever removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from segzero_ml.errors import ConfigError

MARKER: Final = ".segzero-export"


class ExportFolder:
    """A folder in the making.

    Args:
        part: Where to write.
        marker: Its marker, open and locked.
    """

    def __init__(self, part: Path, marker: int) -> None:
        self.path = part
        self._marker = marker

    def describe(self, summary: Mapping[str, Any]) -> None:
        """Note in the marker what was written."""
        os.ftruncate(self._marker, 0)
        os.pwrite(self._marker, (json.dumps(summary) + "\n").encode(), 0)


@contextmanager
def export_folder(out: Path, force: bool) -> Iterator[ExportFolder]:
    """Make a folder, to be completed within the `with`; then it takes its place.

    After an error or an interrupt nothing of it is left.

    Args:
        out: The folder; must not hold anything.
        force: It may hold an earlier export, which is replaced.

    Raises:
        ConfigError: It holds something, another export writes to it, or it cannot be written.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - a link must stay one, to be refused
    check_free(out, force)
    part = out.with_name(f"{out.name}.part")
    with _as_config_error(out):
        marker = _begin(part)
        try:
            folder = ExportFolder(part, marker)
            yield folder
            _replace(part, out, force)
        except BaseException:  # an interrupt, too
            shutil.rmtree(part, ignore_errors=True)
            raise
        finally:
            os.close(marker)


def check_free(out: Path, force: bool) -> None:
    """Refuse a folder that holds something, before any work is done for it.

    Raises:
        ConfigError: As above.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out} is no folder.", "Give the name of a new folder.")
    if not out.parent.is_dir():
        raise ConfigError(f"There is no folder {out.parent}.", "Make it first.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not _is_ours(out):
        raise ConfigError(
            f"{out} is not empty, and is no earlier export.", "Give the name of a new folder."
        )
    if not force:
        raise ConfigError(f"{out} holds an earlier export.", "Replace it with --force.")


def _begin(part: Path) -> int:
    """Make the folder with its marker, which stays locked while this process writes to it."""
    if part.exists() and not _is_ours(part):
        raise ConfigError(f"{part} is in the way.", "Move it away, or export to another folder.")
    part.mkdir(exist_ok=True)
    marker = os.open(part / MARKER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(marker)
        raise ConfigError(
            f"Another export writes to {part}.", "Wait for it, or export to another folder."
        ) from None
    # What an export that was killed left behind.
    for entry in part.iterdir():
        if entry.name != MARKER:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return marker


def _replace(part: Path, out: Path, force: bool) -> None:
    check_free(out, force)  # somebody may have put something there meanwhile
    if not out.exists() or not any(out.iterdir()):
        part.rename(out)
        return
    aside = out.with_name(f"{out.name}.replaced")
    if _is_ours(aside):  # left by one that was killed right here
        shutil.rmtree(aside)
    out.rename(aside)
    part.rename(out)
    shutil.rmtree(aside)


def _is_ours(folder: Path) -> bool:
    return (folder / MARKER).is_file()


@contextmanager
def _as_config_error(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"The export to {out} cannot be written: {error.strerror or error}.",
            "Check the folder's permissions and the free space on its disk.",
        ) from error
