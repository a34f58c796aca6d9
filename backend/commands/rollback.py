"""`segzero rollback`: has a project answered by an earlier version of its model again."""

from __future__ import annotations

from typing import Annotated

import typer

from backend.commands.console import stdout


def rollback(
    project: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of the project, as in its address /projects/NUMBER.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="A version of segzero models, or base for the model without any training "
            "[default: the one that served before]",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would serve.")] = False,
) -> None:
    """Serve an earlier version again.

    The one that served before, or a version by name. It is checked first; a running backend
    follows within seconds, and no call fails. Every version is kept: go forward again with --to.

    Predictions that exist stay as they are: `segzero refresh` renews them.

    Example: `segzero rollback --project 7 --dry-run`
    """
    from rich.text import Text

    from backend.data_folder import OTHERWISE
    from backend.model_folders import registry_of
    from backend.settings import load_settings
    from segzero_ml.errors import RegistryError

    settings = load_settings()
    registry = registry_of(settings, project)
    if not registry.folder.is_dir():
        raise RegistryError(
            f"There is nothing to go back to: project {project} has no versions in "
            f"{settings.data_dir.absolute()}.",
            f"segzero models lists those there are. {OTHERWISE}",
        )
    version = registry.rollback(to, dry_run=dry_run)
    name = "the base" if version is None else version.id
    console = stdout()
    if dry_run:
        console.print(Text(f"Project {project} would be answered by {name}. Nothing was changed."))
        return
    console.print(Text(f"Project {project} is answered by {name} now."))
    console.print(
        "A running backend follows within seconds. Predictions that exist stay as they are: "
        f"segzero refresh --project {project} renews them."
    )
