"""The checkpoints of a round on disk, of which a kill may leave one in pieces."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

COLD_START: Final = "cold-start"
"""Folder of the adapter before its first rewards, where there was a cold start."""

_WRITTEN_LAST: Final = "trainer_state.json"

_STATES: Final = (
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "global_step*",  # DeepSpeed's, of optimiser and scheduler
)
"""What nobody needs but who goes on from a checkpoint: two thirds of it, or more."""


def checkpoints(folder: Path) -> tuple[Path, ...]:
    """Those of a round that are whole, oldest first."""
    return tuple(path for path in _all(folder) if _is_whole(path))


def discard_broken(folder: Path) -> None:
    """Remove what a kill left in pieces, so that nothing goes on from it."""
    for path in _all(folder):
        if not _is_whole(path):
            _log.warning("%s is not whole: removed", path.name)
            shutil.rmtree(path)


def drop_states(folder: Path, *, but_newest: bool) -> None:
    """Remove what is needed only to go on from checkpoints. One in pieces is left alone.

    Args:
        folder: The round's.
        but_newest: Leave it to the newest that is whole: it is the one to go on from.
    """
    whole = checkpoints(folder)
    for path in whole[:-1] if but_newest else whole:
        for pattern in _STATES:
            for found in path.glob(pattern):
                _remove(found)


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:  # room alone is lost
        _log.warning("%s cannot be removed: %s", path, error.strerror or error)


def _all(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[11:]))


def _is_whole(path: Path) -> bool:
    try:
        return isinstance(json.loads((path / _WRITTEN_LAST).read_bytes()), dict)
    except (OSError, ValueError):
        return False
