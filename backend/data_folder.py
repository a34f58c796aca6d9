"""The data folder, as commands beside the backend see it: where it is, and what is served on it.

`<data folder>/preset` is one line, written when a backend starts: the preset that it serves, and
that rounds of training start from.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from backend.settings import Settings
from segzero_ml.durable import replace_file
from segzero_ml.errors import ConfigError
from segzero_ml.presets import PRESETS

_log = logging.getLogger(__name__)

OTHERWISE: Final = (
    "If segzero up runs on another folder: run this where that was started, or set "
    "SEGZERO_DATA_DIR."
)
"""What to do where something is missing because the wrong folder was looked in."""

_LONGEST: Final = 200


def check_data_folder(settings: Settings) -> None:
    """Refuse to work beside a backend whose data folder is elsewhere.

    Raises:
        ConfigError: There is no such folder.
    """
    folder = settings.data_dir.absolute()
    if not folder.is_dir():
        raise ConfigError(
            f"There is no data folder {folder}: training needs the backend's.", OTHERWISE
        )


def note_preset(settings: Settings) -> None:
    """Write down what is served, for commands that are run beside it; the folder must be there."""
    try:
        replace_file(_note(settings), f"{settings.preset}\n".encode())
    except OSError as error:  # nothing of the serving hangs on it
        _log.warning("The preset could not be noted: %s", error.strerror or error)


def noted_preset(settings: Settings) -> str | None:
    """The preset of the backend that was started last; None where nobody knows."""
    try:
        with _note(settings).open("rb") as file:
            name = file.read(_LONGEST).decode(errors="replace").strip()
    except OSError:
        return None
    return name if name in PRESETS else None


def _note(settings: Settings) -> Path:
    return settings.data_dir.absolute() / "preset"
