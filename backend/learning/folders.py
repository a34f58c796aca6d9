"""Where the learning loop keeps its files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from backend.model_folders import project_slug
from backend.settings import Settings
from training_hooks.store_values import ProjectKey

_SNAPSHOTS: Final = "snapshots"
_ROUNDS: Final = "rounds"
_LOCKS: Final = "locks"
_LONGEST_NAME: Final = 64


def snapshots_folder(settings: Settings, project: int) -> Path:
    """The snapshots of one project of this Label Studio."""
    return settings.data_dir.absolute() / _SNAPSHOTS / project_slug(settings, project)


def all_snapshot_folders(settings: Settings) -> tuple[Path, ...]:
    """The same of every project that has some, by name."""
    folder = settings.data_dir.absolute() / _SNAPSHOTS
    if not folder.is_dir():
        return ()
    return tuple(sorted(one for one in folder.iterdir() if one.is_dir()))


def rounds_folder(settings: Settings, project: int) -> Path:
    """The rounds of training of one project: a folder each, with checkpoints and report."""
    return settings.data_dir.absolute() / _ROUNDS / project_slug(settings, project)


def locks_folder(settings: Settings) -> Path:
    """Where trainers of this data folder lock their projects."""
    return settings.data_dir.absolute() / _LOCKS


def loop_name(settings: Settings, project: int) -> str:
    """What a project's training is called; see `loop_name_of`."""
    return loop_name_of(ProjectKey(settings.label_studio_name, project))


def loop_name_of(key: ProjectKey) -> str:
    """What a project's training is called in locks, jobs and Redis: letters, digits, _ and -.

    Its folders' name where that is one; else a hash of it, as a Label Studio's name may be
    longer and hold dots.
    """
    slug = f"{key.label_studio}-{key.project}"
    if len(slug) <= _LONGEST_NAME and re.fullmatch(r"[A-Za-z0-9_-]+", slug):
        return slug
    return f"{hashlib.sha256(slug.encode()).hexdigest()[:16]}-{key.project}"
