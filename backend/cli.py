"""The `segzero` command. Heavy libraries are imported inside the commands that need them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Final

import typer

from backend.commands.connect import connect
from backend.commands.corrections import app as corrections
from backend.commands.evaluate import evaluate
from backend.commands.export import export
from backend.commands.journey import JourneyGroup
from backend.commands.models import models
from backend.commands.preannotate import preannotate, refresh
from backend.commands.predict import predict
from backend.commands.presets import presets
from backend.commands.retry import retry
from backend.commands.rollback import rollback
from backend.commands.serve import serve
from backend.commands.snapshots import snapshots
from backend.commands.status import status
from backend.commands.sync import sync
from backend.commands.template import template
from backend.commands.train import train
from backend.commands.up import up
from backend.commands.worker import worker
from segzero_ml.errors import SegZeroError

_HELP: Final = """\
Ask for things in plain words; get masks and the reasons for them, in Label Studio.

First steps: `segzero predict PICTURE "the red star"`, then start `segzero up` and join it to a
project with `segzero connect`.
"""


def show_error(error: SegZeroError) -> None:
    """Write an error and its remedy to standard error."""
    typer.echo(f"{typer.style('Error:', fg='red', bold=True)} {error.message}", err=True)
    if error.remedy:
        typer.echo(f"{typer.style('What to do:', bold=True)} {error.remedy}", err=True)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(version("segzero-label-studio"))
    except PackageNotFoundError:
        typer.echo("not installed")
    raise typer.Exit


app = typer.Typer(
    cls=JourneyGroup,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and stop."
        ),
    ] = False,
) -> None:
    pass


for _command, _name in (
    (predict, "predict"),
    (presets, "presets"),
    (template, "template"),
    (up, "up"),
    (connect, "connect"),
    (serve, "serve"),
    (worker, "worker"),
    (preannotate, "preannotate"),
    (refresh, "refresh"),
    (status, "status"),
    (sync, "sync"),
    (retry, "retry"),
    (export, "export"),
    (train, "train"),
    (models, "models"),
    (rollback, "rollback"),
    (snapshots, "snapshots"),
    (evaluate, "eval"),
):
    app.command(_name)(_command)
app.add_typer(corrections, name="corrections")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Every command's errors end here: one message, one remedy, exit code 1.

    Args:
        arguments: The command line without the program's name; the process's if None.
    """
    try:
        app(arguments, prog_name="segzero")
    except SegZeroError as error:
        show_error(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
