"""What the commands share: consoles, JSON, files to write, and the `--preset` option."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segzero_ml.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from segzero_ml.pipeline import Pipeline

PresetOption = Annotated[
    str, typer.Option("--preset", help="Which models to use; `segzero presets` lists them.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def stdout() -> Console:
    """For what the user asked for."""
    from rich.console import Console

    return Console(highlight=False)


def stderr() -> Console:
    """For what accompanies it: progress and remarks."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def no_worker_of(queue: str) -> str:
    """What to say where jobs wait and nobody does them."""
    return f"No worker of the queue {queue} runs: start segzero up, or segzero worker {queue}."


def print_json(value: object) -> None:
    """One JSON object on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into an error for the user.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"Cannot write {path}: {error.strerror or error}.", "Choose another place for it."
        ) from error


def check_writable(path: Path | None, suffixes: tuple[str, ...]) -> None:
    """Refuse a file name that could not be written, before any work is done for it.

    Raises:
        ConfigError: The ending is none of `suffixes`, or there is no such folder.
    """
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise ConfigError(
            f"{path} does not end in {' or '.join(suffixes)}.", "Give it such an ending."
        )
    if not path.parent.is_dir():
        raise ConfigError(f"There is no folder {path.parent}.", "Make it first.")


def load_pipeline(preset: str) -> Pipeline:
    """Load a preset's models, with a sign of life on a terminal.

    Raises:
        PresetError: There is no preset of that name.
        WeightsError: Weights are missing, refused or damaged.
    """
    from segzero_ml.presets import get_preset

    name = get_preset(preset).name  # before torch is imported, which takes seconds
    with stderr().status(f"Loading the models of {name}"):
        from segzero_ml.pipeline import Pipeline

        return Pipeline.load(name)
