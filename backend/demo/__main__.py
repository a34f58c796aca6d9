"""The command line of the demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from segzero_ml.errors import SegZeroError


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop when every task has its prediction.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Drop the last run's data instead of going on with it.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port for Label Studio. [default: 8080 if free, else any]"
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path(".demo"),
) -> None:
    """Label Studio with pre-annotated pictures, from nothing.

    Installs Label Studio into an environment of its own, starts it and SegZero, makes a project
    of tabletop scenes, has Label Studio retrieve the predictions, shows them beside the truth,
    and stays up until Ctrl-C. The next run goes on with the same project.
    """
    from backend.cli import show_error
    from backend.demo.run import Options, run

    try:
        complete = run(Options(folder, once, fresh, port), Console(highlight=False))
    except SegZeroError as error:
        show_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        sys.exit(130)
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    typer.run(demo)
