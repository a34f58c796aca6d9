"""`segzero --help`: the commands in the order in which people come to need them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from typer.core import TyperGroup

JOURNEY: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Try it": ("predict", "presets"),
        "Set up": ("template", "up", "connect", "serve", "worker"),
        "Predictions for whole projects": ("preannotate", "refresh"),
        "Corrections": ("status", "corrections", "sync", "retry", "export"),
        "Learning": ("train", "models", "rollback", "snapshots"),
        "Measuring": ("eval",),
    }
)
"""What is done -> the commands for it."""


class JourneyGroup(TyperGroup):
    """Lists the commands under what they are for; typer itself does so only through rich."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, a section for each part of the journey."""
        width = max(len(name) for name in self.commands)
        room = formatter.width - width - 4  # two spaces before the name, two after
        for title, names in JOURNEY.items():
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(room)) for name in names
            ]
            with formatter.section(title):
                formatter.write_dl(rows)
