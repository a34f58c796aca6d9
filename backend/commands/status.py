"""`segzero status`: how the way of the corrections does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from backend.commands.console import JsonOption, print_json, stdout

if TYPE_CHECKING:
    from backend.report import Report

_REFRESH_S: Final = 1.0


def status(
    project: Annotated[
        int | None,
        typer.Option(min=1, help="Only this project [default: all]", show_default=False),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Look again every second, until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show queues, failures and corrections.

    Queues, failed jobs and why they failed, corrections in numbers, rounds of training, and
    what waits on disk. Works while Redis is away, too: then what waits on disk is all there is
    to show. With --json and --follow: one JSON object a line.

    Exit code 0: corrections get to where they belong. 1: Redis is away, or too much waits on
    disk; the reason and what to do about it are part of what is shown.

    Example: `segzero status --project 7 --follow`
    """
    from backend.report import collect
    from backend.settings import load_settings

    settings = load_settings()
    if follow:
        _follow(lambda: collect(settings, project), as_json)
        return
    report = collect(settings, project)
    if as_json:
        from backend.report_json import report_as_dict

        print_json(report_as_dict(report))
    else:
        from backend.commands.status_view import parts

        stdout().print(*parts(report), sep="\n")
    if not report.is_healthy:
        raise typer.Exit(1)


def _follow(look: Callable[[], Report], as_json: bool) -> None:
    try:
        if as_json:
            from backend.report_json import report_as_dict

            while True:
                print_json(report_as_dict(look()))
                time.sleep(_REFRESH_S)
        from rich.console import Group
        from rich.live import Live

        from backend.commands.status_view import parts

        with Live(console=stdout(), auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                live.update(Group(*parts(look())), refresh=True)
                time.sleep(_REFRESH_S)
    except KeyboardInterrupt:  # how it is meant to end
        return
