"""`segzero corrections`: what the annotators made of the predictions, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from backend.commands.console import (
    JsonOption,
    check_writable,
    print_json,
    stderr,
    stdout,
    writing,
)
from segzero_ml.verdict import Verdict

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console
    from rich.text import Text

    from backend.settings import Settings
    from segzero_ml.corrections import Correction

ProjectOption = Annotated[
    int | None,
    typer.Option("--project", min=1, help="Only this project [default: all]", show_default=False),
]
VerdictOption = Annotated[
    Verdict | None,
    typer.Option("--verdict", help="Only those with this verdict.", show_default=False),
]

_COLUMNS: Final = "{:16} {:>7} {:>6} {:>6}  {:13} {:>4} {:>4}  {}"
_TITLES: Final = ("Saved (UTC)", "Project", "Task", "Id", "Verdict", "IoU", "User", "Request")

app = typer.Typer(
    help="What the annotators made of the predictions, one by one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_corrections(
    project: ProjectOption = None,
    verdict: VerdictOption = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many, the newest; 0 for all.")] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line and nothing else.")
    ] = False,
) -> None:
    """List corrections, the newest first.

    Any number can be listed: they are read page by page.
    """
    from backend.report_json import summary
    from backend.settings import load_settings

    found = _newest(load_settings(), project, verdict)
    chosen = islice(found, limit or None)
    if as_json:
        for one in chosen:
            print_json(summary(one))
        return
    console = stdout()
    number = 0
    for number, one in enumerate(chosen, start=1):
        if number == 1:
            _print_line(console, _COLUMNS.format(*_TITLES))
        _print_line(console, _line(one))
    if not number:
        stderr().print("There are none. segzero status shows whether some are on their way.")
    elif number == limit:
        stderr().print(f"These are the newest {limit}; --limit 0 lists all.", style="dim")


@app.command("show")
def show_correction(
    annotation: Annotated[
        int,
        typer.Argument(min=1, help="Id of the annotation in Label Studio.", show_default=False),
    ],
    project: ProjectOption = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Draw prediction and correction side by side into this PNG."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show one correction, with --save as a picture.

    Shows the facts and the notes. The picture has three panels: what was predicted, what is
    true, and where they differ. Its image is fetched anew from where the task has it; if it
    cannot be had, the masks are drawn on a plain ground, and the picture says why.
    """
    from backend.settings import load_settings

    check_writable(save, (".png",))
    settings = load_settings()
    found = _find(settings, project, annotation)
    if save is not None:
        _draw(settings, found, save)
    if as_json:
        print_json(found.to_json())
        return
    console = stdout()
    for line in _facts(found):
        console.print(line)
    if save is None:
        stderr().print("Draw it with --save FILE.png.", style="dim")
    else:
        console.print(f"Drawn: {save}")


def _newest(
    settings: Settings, project: int | None, verdict: Verdict | None
) -> Iterator[Correction]:
    from backend.newest import newest
    from backend.redis_access import open_redis
    from training_hooks.store_reader import CorrectionReader
    from training_hooks.store_values import ProjectKey

    with open_redis(settings, "segzero-corrections") as client:
        reader = CorrectionReader(client)
        keys = (
            reader.projects()
            if project is None
            else (ProjectKey(settings.label_studio_name, project),)
        )
        yield from newest(reader, keys, verdict)


def _find(settings: Settings, project: int | None, annotation: int) -> Correction:
    from backend.redis_access import open_redis
    from segzero_ml.errors import InputError
    from training_hooks.store_reader import CorrectionReader
    from training_hooks.store_values import ProjectKey

    name = settings.label_studio_name
    with open_redis(settings, "segzero-corrections") as client:
        reader = CorrectionReader(client)
        # An annotation's id is the same in no two projects of a Label Studio.
        keys = reader.projects() if project is None else (ProjectKey(name, project),)
        for key in keys:
            if key.label_studio == name:
                found = reader.get(key.annotation(annotation))
                if found is not None:
                    return found
    raise InputError(
        f"There is no correction of annotation {annotation}.",
        "segzero corrections list has those there are. A skipped annotation has none, and one "
        "saved just now may still be on its way: see segzero status.",
    )


def _draw(settings: Settings, correction: Correction, path: Path) -> None:
    from segzero_ml.side_by_side import draw

    with stderr().status("Fetching the image"):
        image, remark = _image(settings, correction)
    picture = draw(correction, image, remark)
    with writing(path):
        picture.save(path, "PNG")
    if remark:
        stderr().print(remark, style="yellow", markup=False)


def _image(settings: Settings, correction: Correction) -> tuple[Image.Image | None, str]:
    """The image, or None and why there is none."""
    import asyncio

    from backend.fetch import ImageFetcher
    from backend.task_files import load_image_of
    from segzero_ml.errors import FetchError, ImageError, LabelStudioError

    async def fetch() -> Image.Image:
        fetcher = ImageFetcher(settings)
        try:
            return await load_image_of(fetcher, correction, settings)
        finally:
            await fetcher.aclose()

    try:
        return asyncio.run(fetch()), ""
    except (FetchError, ImageError, LabelStudioError) as error:
        return None, f"Without its image: {error}"


def _line(one: Correction) -> str:
    saved = one.revision.updated_at.astimezone(UTC)
    return _COLUMNS.format(
        f"{saved:%Y-%m-%d %H:%M}",
        one.key.project,
        one.task,
        one.key.annotation,
        one.verdict.value.replace("_", " "),
        "-" if one.edit_iou is None else f"{one.edit_iou:.2f}",
        "-" if one.annotator is None else one.annotator,
        _plain(one.request),
    )


def _print_line(console: Console, line: str) -> None:
    """On a terminal a line stays a line; elsewhere it is given in full."""
    if console.is_terminal:
        console.print(line, no_wrap=True, overflow="ellipsis", markup=False)
    else:
        typer.echo(line)


def _facts(one: Correction) -> Iterator[Text]:
    from rich.text import Text

    iou = "" if one.edit_iou is None else f", IoU {one.edit_iou:.2f}"
    yield Text(
        f"Annotation {one.key.annotation} of task {one.task}, project {one.key.project}: "
        f"{one.verdict.value.replace('_', ' ')}{iou}",
        style="bold",
    )
    facts: list[tuple[str, object]] = [("Asked", _plain(request)) for request in one.requests]
    facts += [
        ("Predicted", f"{len(one.predicted)} objects"),
        ("Corrected", f"{len(one.corrected)} objects"),
        ("Note as shown", _plain(one.note_shown) or "-"),
        ("Note as edited", _plain(one.note_edited) or "-"),
        ("Saved", one.revision.updated_at.astimezone(UTC).isoformat(" ", "seconds")),
        ("Time taken", "-" if one.lead_time_s is None else f"{one.lead_time_s:.1f} s"),
        ("Model", one.model_version or "-"),
        ("User", "-" if one.annotator is None else one.annotator),
        ("Ground truth", "yes" if one.ground_truth else "no"),
        ("Image", _plain(one.image)),
    ]
    for name, value in facts:
        yield Text.assemble((f"  {name:15}", "dim"), str(value))


def _plain(text: str) -> str:
    """One line, without characters that would move a terminal's cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
