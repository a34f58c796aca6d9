"""Where the learning loop keeps its files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from backend.model_folders import project_slug
from backend.settings import Settings

_SNAPSHOTS: Final = "snapshots"


def snapshots_folder(settings: Settings, project: int) -> Path:
    """The snapshots of one project of this Label Studio."""
    return settings.data_dir.absolute() / _SNAPSHOTS / project_slug(settings, project)


def all_snapshot_folders(settings: Settings) -> tuple[Path, ...]:
    """The same of every project that has some, by name."""
    folder = settings.data_dir.absolute() / _SNAPSHOTS
    if not folder.is_dir():
        return ()
    return tuple(sorted(one for one in folder.iterdir() if one.is_dir()))
