"""`segzero export`: the corrections as a data set on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.commands.console import JsonOption, print_json, stderr, stdout
from backend.commands.corrections import ProjectOption, VerdictOption
from backend.exports.order import Format, Order, Summary

if TYPE_CHECKING:
    from backend.settings import Settings


def export(
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="jsonl: requests.jsonl and images, as segzero eval reads it, with nothing lost. "
            "coco: COCO instances; labels become categories. reasonseg: pairs of JPEG and JSON; "
            "the masks of a request are joined.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The folder; must be new or empty.", show_default=False)
    ],
    project: ProjectOption = None,
    verdict: VerdictOption = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only those saved then or later: 2026-03-01, or with a time 2026-03-01T08:00; "
            "in UTC unless it says otherwise.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the corrections and their images as a data set.

    One annotation of each task counts: the one marked as ground truth, else the one saved
    last. Each of its requests becomes a sample; one without masks means that nothing matches.
    Images are fetched anew, and left out with a reason where they cannot be had or have
    changed. Measure a model on the result with segzero eval.

    Example: `segzero export --format jsonl --out corrections --project 7`
    """
    moment = None if since is None else _moment(since)
    from backend.exports.folder import check_free
    from backend.settings import load_settings

    settings = load_settings()
    check_free(out, force)
    order = Order(form, out, (), verdict, moment, force)
    summary = _run(settings, order, project)
    if as_json:
        print_json({"out": str(out), "format": form.value, **summary.as_dict()})
    else:
        _print(summary, out, form)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time such as 2026-03-01.") from None
    return moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC)


def _run(settings: Settings, order: Order, project: int | None) -> Summary:
    import asyncio
    from dataclasses import replace

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from backend.exports.run import expected
    from backend.exports.run import export as write
    from backend.fetch import ImageFetcher
    from backend.redis_access import open_redis
    from training_hooks.store_reader import CorrectionReader
    from training_hooks.store_values import ProjectKey

    async def work() -> Summary:
        fetcher = ImageFetcher(settings)
        try:
            return await write(
                order, reader, fetcher, settings, lambda seen: progress.update(bar, completed=seen)
            )
        finally:
            await fetcher.aclose()

    columns = (TextColumn("Exporting"), BarColumn(), MofNCompleteColumn(), Remaining())
    console = stderr()
    shown = console.is_terminal
    with (
        open_redis(settings, "segzero-export") as client,
        Progress(*columns, console=console, transient=True, disable=not shown) as progress,
    ):
        reader = CorrectionReader(client)
        name = settings.label_studio_name
        # Images can only be fetched from the Label Studio that the settings name.
        keys = [key for key in reader.projects() if key.label_studio == name]
        chosen = keys if project is None else [ProjectKey(name, project)]
        order = replace(order, projects=tuple(chosen))
        bar = progress.add_task("", total=expected(reader, order))
        return asyncio.run(work())


def _print(summary: Summary, out: Path, form: Format) -> None:
    from rich.text import Text

    console = stdout()
    console.print(
        Text(
            f"{summary.exported} corrections with {summary.requests} requests are in {out}, "
            f"{summary.nothing_here} of them with nothing to find."
        )
    )
    if summary.others:
        console.print(
            f"Not asked for, or not the annotation of its task that counts: {summary.others}."
        )
    for reason, number in summary.left_out.most_common():
        console.print(f"Left out: {number}, because {reason.value}.", style="yellow")
    if summary.left_out:
        console.print(Text(f"Each is named in {out / 'left-out.jsonl'}."), style="dim")
    if form is not Format.COCO:
        console.print(Text(f"Measure: segzero eval --dataset {form} --root {out}"), style="dim")
