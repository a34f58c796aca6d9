"""`segzero eval`: how good a preset is on pictures with known masks."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from backend.commands.console import (
    JsonOption,
    PresetOption,
    load_pipeline,
    print_json,
    stderr,
    stdout,
)
from segzero_ml.errors import ConfigError

if TYPE_CHECKING:
    from segzero_ml.datasets import Sample
    from segzero_ml.pipeline import Pipeline

SCENES_LIMIT: Final = 200
"""How many scenes are drawn when no limit is given; there is no end to them."""


class Dataset(StrEnum):
    """What can be evaluated on."""

    SCENES = "scenes"
    JSONL = "jsonl"
    REASONSEG = "reasonseg"


def evaluate(
    dataset: Annotated[
        Dataset,
        typer.Option(
            help="scenes: drawn as needed, never seen in training. jsonl: DIR/requests.jsonl, a "
            'line each {"image", "request", "masks"}. reasonseg: one split of ReasonSeg.'
        ),
    ] = Dataset.SCENES,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data set; scenes have none.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"At most so many samples [default: all, of scenes {SCENES_LIMIT}]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which samples are drawn.")] = 0,
    preset: PresetOption = "tiny",
    as_json: JsonOption = False,
) -> None:
    """Measure a preset on pictures with known masks.

    Gives gIoU, cIoU, N-acc and the share of unreadable answers, in all and by kind of request.

    gIoU is the mean of the samples' IoU, cIoU the IoU of all pixels together. A request that
    nothing matches counts 1 if nothing was found, else 0; N-acc is the share of those found
    empty (the convention of LISA).

    Example: `segzero eval --limit 100`

    Example: `segzero eval --dataset jsonl --root corrections`
    """
    samples = _samples(dataset, root, limit, seed)
    report = _measure(load_pipeline(preset), samples)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _samples(dataset: Dataset, root: Path | None, limit: int | None, seed: int) -> Sequence[Sample]:
    if dataset is Dataset.SCENES:
        if root is not None:
            raise ConfigError("Scenes are drawn, not read.", "Leave --root out.")
        from segzero_ml.datasets.scenes import scene_samples

        return scene_samples(limit or SCENES_LIMIT, seed)
    if root is None:
        raise ConfigError(f"The data set {dataset} needs its folder.", "Give it as --root DIR.")
    if dataset is Dataset.JSONL:
        from segzero_ml.datasets.jsonl import read_jsonl

        return read_jsonl(root, limit, seed)
    from segzero_ml.datasets.reasonseg import read_reasonseg

    return read_reasonseg(root, limit, seed)


def _measure(pipeline: Pipeline, samples: Sequence[Sample]) -> dict[str, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from segzero_ml.evaluate import evaluate as measure

    columns = (TextColumn("Evaluating"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        bar = progress.add_task("", total=len(samples))
        return measure(pipeline, samples, lambda done: progress.update(bar, completed=done))


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("Requests", "Samples", "gIoU", "cIoU", "N-acc", "Unreadable")
    for kind, row in [*sorted(report["by_kind"].items()), ("all", report)]:
        figures = (row.get(name) for name in ("gIoU", "cIoU", "n_acc", "format_errors"))
        style = "bold" if row is report else None
        table.add_row(kind or "-", str(row["samples"]), *map(_figure, figures), style=style)
    console = stdout()
    console.print(table)
    console.print(
        f"Model {report['model_version']}, {_figure(report['seconds_median'])} s a request "
        f"(median). Score against IoU: Spearman {_figure(report['score_spearman'])}, AUROC "
        f"{_figure(report['score_auroc'])}.",
        style="dim",
    )
    console.print(f"Convention {report['convention']}.", style="dim")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
