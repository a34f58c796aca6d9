"""`segzero models`: the versions of each project's model, and which of them serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from backend.commands.console import JsonOption, print_json, stderr, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from backend.settings import Settings
    from segzero_ml.registry import Registry
    from segzero_ml.versions import Version

_BASE: Final = "base"
_SHOWN_FIGURES: Final = 4


@dataclass(frozen=True, slots=True)
class _Row:
    """A version of a project's model; the base has neither number nor manifest."""

    project: int
    id: str
    serves: bool
    version: Version | None = None
    problem: str = ""


def models(
    project: Annotated[
        int | None,
        typer.Option(min=1, help="Only this project [default: all]", show_default=False),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file, and compare it with its hash.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List a project's model versions.

    The newest first, and which one serves; of all projects without --project. The base is the
    model without any training. The backend follows within seconds when another version is to
    serve; one that it finds damaged it refuses, and the one before serves on.

    Exit code 1: one of them is damaged.
    """
    from backend.data_folder import OTHERWISE
    from backend.settings import load_settings

    settings = load_settings()
    rows, folder = list(_rows(settings, project, verify)), settings.data_dir.absolute()
    if as_json:
        print_json({"models": [_as_dict(row) for row in rows], "data_dir": str(folder)})
    elif not rows:
        stderr().print(
            f"There are none in {folder}: each round of training that helps makes one. {OTHERWISE}",
            markup=False,
            soft_wrap=True,
        )
    else:
        stdout().print(_table(rows))
    if any(row.problem for row in rows):
        raise typer.Exit(1)


def _rows(settings: Settings, project: int | None, verify: bool) -> Iterator[_Row]:
    from backend.model_folders import registries, registry_of

    found = registries(settings)
    if project is not None:
        found = {project: registry_of(settings, project)}
    for number, registry in sorted(found.items()):
        yield from _of_project(number, registry, verify)


def _of_project(project: int, registry: Registry, verify: bool) -> Iterator[_Row]:
    from segzero_ml.errors import WeightsError

    champion: str | None = ""  # neither a version nor the base, where that is not known
    problem = ""
    try:
        champion = registry.lineage().champion
    except WeightsError as error:
        problem = str(error)
    versions, damaged = registry.versions(), registry.damaged()
    for version in versions:
        yield _Row(
            project,
            version.id,
            version.id == champion,
            version,
            _problem_of(registry, version) if verify else "",
        )
    for version_id in damaged:
        yield _Row(project, version_id, version_id == champion, problem="Its manifest is damaged.")
    gone = champion and champion not in {*damaged, *(version.id for version in versions)}
    if gone:
        yield _Row(project, str(champion), True, problem="It is to serve, but it is gone.")
    if versions or damaged or gone or problem:
        yield _Row(project, _BASE, champion is None, problem=problem)


def _problem_of(registry: Registry, version: Version) -> str:
    from segzero_ml.errors import WeightsError

    try:
        registry.verify(version)
    except WeightsError as error:
        return error.message
    return ""


def _table(rows: list[_Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("Project", "Version", "Serves", "Made (UTC)", "Figures", "Round", box=None)
    for row in rows:
        info = None if row.version is None else row.version.info
        table.add_row(
            str(row.project),
            Text(row.id),
            Text("serves", style="bold green") if row.serves else Text(""),
            Text("" if row.version is None else _short(row.version.created_at)),
            Text(row.problem, style="red")
            if row.problem
            else Text("" if info is None else _figures(info.figures)),
            Text("" if info is None else info.round),
        )
    return table


def _figures(figures: Mapping[str, float]) -> str:
    shown = [f"{name} {value:.3g}" for name, value in figures.items()]
    more = len(shown) - _SHOWN_FIGURES
    return ", ".join(shown[:_SHOWN_FIGURES]) + (f", {more} more" if more > 0 else "")


def _short(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _as_dict(row: _Row) -> dict[str, Any]:
    """Its keys are a promise to scripts: add to them, never change one."""
    found: dict[str, Any] = {
        "project": row.project,
        "version": row.id,
        "serves": row.serves,
        "problem": row.problem or None,
    }
    if row.version is not None:
        info = row.version.info
        found |= {
            "created_at": row.version.created_at.astimezone(UTC).isoformat(),
            "preset": info.preset,
            "base": info.base,
            "round": info.round,
            "snapshot": info.snapshot,
            "figures": dict(info.figures),
            "folder": str(row.version.folder),
        }
    return found
