"""`segzero presets`: the table of models."""

from __future__ import annotations

from backend.commands.console import JsonOption, print_json, stdout


def presets(as_json: JsonOption = False) -> None:
    """List the models: what for, memory, licence."""
    from segzero_ml.presets import PRESETS

    if as_json:
        print_json(
            {
                preset.name: {
                    "reasoner": preset.reasoner,
                    "segmenter": preset.segmenter,
                    "frame": type(preset.frame).__name__.lower(),
                    "schema": preset.schema.value,
                    "memory_gb": preset.memory_gb,
                    "licence": preset.licence,
                    "summary": preset.summary,
                }
                for preset in PRESETS.values()
            }
        )
        return
    from rich.table import Table

    table = Table("Preset", "For", "Memory", "Licence")
    for preset in PRESETS.values():
        table.add_row(preset.name, preset.summary, f"{preset.memory_gb:.0f} GB", preset.licence)
    console = stdout()
    console.print(table)
    console.print("Use one with --preset NAME or SEGZERO_PRESET=NAME.", style="dim")
