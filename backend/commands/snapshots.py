"""`segzero snapshots`: the data sets that rounds of training were made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from backend.commands.console import JsonOption, print_json, stderr

if TYPE_CHECKING:
    from backend.settings import Settings
    from training_hooks.snapshot_manifest import Manifest, SideCounts

_COLUMNS: Final = "{:16} {:>7}  {:16} {:>6} {:>8}  {:>5} {:>5} {:>8} {:>8}  {:16}"
_TITLES: Final = (
    "Made (UTC)",
    "Project",
    "Id",
    "Train",
    "Held out",
    "New",
    "Older",
    "Accepted",
    "Left out",
    "Up to (UTC)",
)


@dataclass(frozen=True, slots=True)
class _Found:
    """A snapshot's folder, and what it says, or what is wrong with it."""

    folder: Path
    manifest: Manifest | None
    problem: str = ""


def snapshots(
    project: Annotated[
        int | None,
        typer.Option(min=1, help="Only this project [default: all]", show_default=False),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file, and compare it with its hash.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the data sets of past rounds.

    The snapshots of corrections that models were trained on, the newest first. Train and Held
    out count requests with their true answers; New, Older and Accepted those to train on. A
    snapshot never changes; its folder may be deleted when nobody needs it any more.

    Exit code 1: one of them is damaged.
    """
    from backend.data_folder import OTHERWISE
    from backend.settings import load_settings

    settings = load_settings()
    found, folder = list(_find(settings, project, verify)), settings.data_dir.absolute()
    found.sort(key=_made, reverse=True)
    if as_json:
        print_json({"snapshots": [_as_dict(one) for one in found], "data_dir": str(folder)})
    elif not found:
        stderr().print(
            f"There are none in {folder}: each round of training makes one. {OTHERWISE}",
            markup=False,
            soft_wrap=True,
        )
    else:
        typer.echo(_COLUMNS.format(*_TITLES).rstrip())
        for one in found:
            typer.echo(_line(one))
    if any(one.problem for one in found):
        raise typer.Exit(1)


def _find(settings: Settings, project: int | None, verify: bool) -> Iterator[_Found]:
    from backend.learning.folders import all_snapshot_folders, snapshots_folder
    from segzero_ml.errors import DatasetError
    from training_hooks.snapshot import Snapshot
    from training_hooks.snapshot_files import MANIFEST, read_text, snapshot_folders
    from training_hooks.snapshot_manifest import read_manifest

    folders = (
        all_snapshot_folders(settings)
        if project is None
        else (snapshots_folder(settings, project),)
    )
    for folder in (one for each in folders for one in snapshot_folders(each)):
        try:
            manifest = read_manifest(read_text(folder / MANIFEST))
            if verify:
                Snapshot.open(folder)
            yield _Found(folder, manifest)
        except DatasetError as error:
            yield _Found(folder, None, error.message)


def _made(one: _Found) -> tuple[datetime, str]:
    """Damaged ones first: they are to be seen."""
    made = datetime.max.replace(tzinfo=UTC) if one.manifest is None else one.manifest.created_at
    return made, str(one.folder)


def _line(one: _Found) -> str:
    if one.manifest is None:
        return f"damaged: {one.problem}"
    manifest, train = one.manifest, one.manifest.train
    return _COLUMNS.format(
        _short(manifest.created_at),
        manifest.project.project,
        manifest.id,
        train.examples,
        manifest.held_out.examples,
        train.origins["new"],
        train.origins["older"],
        train.origins["accepted"],
        sum(manifest.left_out.values()),
        _short(manifest.watermark),
    ).rstrip()


def _short(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _as_dict(one: _Found) -> dict[str, Any]:
    """Its keys are a promise to scripts: add to them, never change one."""
    if one.manifest is None:
        return {"folder": str(one.folder), "problem": one.problem}
    found = one.manifest
    return {
        "folder": str(one.folder),
        "problem": None,
        "id": found.id,
        "label_studio": found.project.label_studio,
        "project": found.project.project,
        "created_at": found.created_at.astimezone(UTC).isoformat(),
        "since": None if found.since is None else found.since.astimezone(UTC).isoformat(),
        "watermark": found.watermark.astimezone(UTC).isoformat(),
        "code_version": found.code_version,
        "held_out_share": found.options.held_out_share,
        "train": _side(found.train),
        "held_out": _side(found.held_out),
        "left_out": dict(found.left_out),
    }


def _side(counts: SideCounts) -> dict[str, Any]:
    return {
        "examples": counts.examples,
        "corrections": counts.corrections,
        "images": counts.images,
        "nothing_here": counts.nothing_here,
        "verdicts": dict(counts.verdicts),
        "origins": dict(counts.origins),
    }
