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


def checkpoints(folder: Path) -> tuple[Path, ...]:
    """Those of a round that are whole, oldest first."""
    return tuple(path for path in _all(folder) if _is_whole(path))


def discard_broken(folder: Path) -> None:
    """Remove what a kill left in pieces, so that nothing goes on from it."""
    for path in _all(folder):
        if not _is_whole(path):
            _log.warning("%s is not whole: removed", path.name)
            shutil.rmtree(path)


def _all(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[11:]))


def _is_whole(path: Path) -> bool:
    try:
        return isinstance(json.loads((path / _WRITTEN_LAST).read_bytes()), dict)
    except (OSError, ValueError):
        return False
