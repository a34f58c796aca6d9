"""Where each project's model versions are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from backend.settings import Settings
from segzero_ml.checks import MAX_ID
from segzero_ml.registry import Registry

_FOLDER: Final = "models"


def project_slug(settings: Settings, project: int) -> str:
    """What a project's folders are called, such as `label-studio-7`."""
    return f"{settings.label_studio_name}-{project}"


def registry_of(settings: Settings, project: int) -> Registry:
    """A project's versions; nothing is made or looked at yet."""
    return Registry(_models(settings) / project_slug(settings, project))


def registries(settings: Settings) -> dict[int, Registry]:
    """The versions of every project of this Label Studio that has a folder, by project."""
    prefix = f"{settings.label_studio_name}-"
    found: dict[int, Registry] = {}
    try:
        folders = sorted(entry for entry in _models(settings).iterdir() if entry.is_dir())
    except OSError:  # there is none before the first round of training
        return found
    for folder in folders:
        number = folder.name.removeprefix(prefix)
        is_id = number.isascii() and number.isdigit() and 1 <= int(number[:20]) <= MAX_ID
        # Compared as a whole: another Label Studio may be called like this one and a number.
        if is_id and folder.name == project_slug(settings, int(number)):
            found[int(number)] = Registry(folder)
    return found


def _models(settings: Settings) -> Path:
    return settings.data_dir.absolute() / _FOLDER
