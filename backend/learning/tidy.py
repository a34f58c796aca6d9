"""Lets go of what rounds of training leave on disk once newer ones have come.

A round's checkpoints take far more room than all else, most of it for the state of the optimiser,
which nobody needs once the round is whole. What served or serves has its own copy in the registry;
report, log, curves and outcome always stay.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from training_hooks.checkpoints import COLD_START, drop_states
from training_hooks.round_files import BLENDED, GOLDEN, OUTCOME, RESULT

_log = logging.getLogger(__name__)

_BULKY: Final = ("checkpoint-*", "last", COLD_START, BLENDED, "rehearsal")


def tidy_rounds(rounds: Path, keep: int) -> None:
    """Remove the checkpoints of all but the newest rounds, and of those what has no use any more.

    Call it with the project's lock.

    Args:
        rounds: Folder of a project's rounds.
        keep: Of how many of them the checkpoints stay.
    """
    try:
        folders = sorted((one for one in rounds.iterdir() if one.is_dir()), key=_ended_at)
    except OSError as error:
        _log.warning("%s cannot be tidied: %s", rounds, error.strerror or error)
        return
    old = max(0, len(folders) - keep)
    for folder in folders[old:]:
        # Its process does it, too, unless it was killed in between or is of an earlier version.
        drop_states(folder, but_newest=not (folder / RESULT).exists())
    for folder in folders[:old]:
        # Without its result a round begins anew, should the very same one be wanted again.
        for path in (folder / RESULT, folder / GOLDEN, *_bulky(folder)):
            _remove(path)


def _ended_at(folder: Path) -> int:
    """When a round ended; of one that never did, when it began."""
    outcome = folder / OUTCOME
    return (outcome if outcome.exists() else folder).stat().st_mtime_ns


def _bulky(folder: Path) -> Iterator[Path]:
    for pattern in _BULKY:
        yield from folder.glob(pattern)


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s cannot be removed: %s", path, error.strerror or error)
