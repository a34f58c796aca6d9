"""`segzero sync`: makes the store equal to Label Studio, and says what that took."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from backend.commands.console import JsonOption, print_json, stderr, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from backend.annotations import ImageFacts
    from backend.labelling import Labelling
    from backend.reconcile import Reconciled
    from backend.settings import Settings
    from segzero_ml.errors import SegZeroError

NOT_EQUAL: Final = 3
"""Exit code where something could not be read, or Label Studio's list contradicted itself."""

_KINDS: Final = ("added", "updated", "withdrawn", "removed", "unchanged", "failed")
_SHOWN_FAILURES: Final = 10


def sync(
    project: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of the project, as in its address /projects/NUMBER.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="All projects that have corrections, or this backend's webhook."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make corrections match Label Studio.

    Give --project or --all. Adds what is missing, updates what is stale, and removes what was
    deleted, however it happened: webhooks that got lost, imports, tasks deleted in bulk. The
    backend does the same by itself at its start and every SEGZERO_RECONCILE_EVERY_S seconds.
    Safe to run at any time.

    Needs SEGZERO_LABEL_STUDIO_URL and SEGZERO_LABEL_STUDIO_TOKEN, and Redis.

    Exit code 0: equal. 1: it could not be done. 3: done, but some annotations could not be
    read, or the list was not complete; older corrections of them are kept.

    Example: `segzero sync --project 7 --dry-run`

    Example: `segzero sync --all`
    """
    from backend.settings import load_settings
    from segzero_ml.errors import SegZeroError

    if (project is None) is not every:
        raise typer.BadParameter("Give --project or --all.")
    done: list[Reconciled] = []
    errors: dict[int, SegZeroError] = {}
    with _Work(load_settings(), dry_run) as work:
        for number in [project] if project is not None else work.projects():
            try:
                done.append(work.reconcile(number))
            except SegZeroError as error:
                if not every:
                    raise
                errors[number] = error
    if as_json:
        print_json(_as_dict(done, errors, work.images_missing))
    else:
        _print(done, errors, dry_run)
        if work.images_missing:
            stderr().print(
                f"The pictures of {work.images_missing} tasks could not be fetched; their "
                "corrections are kept without them."
            )
    if errors:
        raise typer.Exit(1)
    if any(one.failed or not one.is_complete for one in done):
        raise typer.Exit(NOT_EQUAL)


class _Work:
    """The connections, and a bar that moves."""

    def __init__(self, settings: Settings, dry_run: bool) -> None:
        self._settings = settings
        self._dry_run = dry_run
        self._open = ExitStack()
        self.images_missing = 0

    def __enter__(self) -> _Work:
        from backend.intake.image_facts import ImageLookup
        from backend.reconcile.projects import open_label_studio
        from backend.redis_access import open_redis
        from training_hooks.store import CorrectionStore

        with ExitStack() as opened:
            self._client = opened.enter_context(open_label_studio(self._settings))
            redis = opened.enter_context(open_redis(self._settings, "segzero-sync"))
            self._open = opened.pop_all()
        self._store = CorrectionStore(redis)
        self._look_up = ImageLookup(self._settings, redis)
        # Said once at the end instead of for every picture.
        logging.getLogger("backend.intake.image_facts").setLevel(logging.ERROR)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def projects(self) -> Sequence[int]:
        """All that matter."""
        from backend.reconcile.projects import find_projects, remember_gone

        found = find_projects(self._client, self._store, self._settings)
        if not self._dry_run:
            remember_gone(self._store, self._settings, found)
        for number in found.gone:
            typer.echo(
                f"Project {number} is gone from Label Studio, or hidden from the token's user; "
                "its corrections stay.",
                err=True,
            )
        return found.wanted

    def _image_of(self, task: Mapping[str, Any], labelling: Labelling) -> ImageFacts | None:
        facts = self._look_up(task, labelling)
        self.images_missing += facts is None
        return facts

    def reconcile(self, number: int) -> Reconciled:
        """Reconcile a project, with a bar on a terminal."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from backend.reconcile import reconcile

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        console = stderr()
        quiet = not console.is_terminal
        with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
            bar = progress.add_task(f"Project {number}", total=None)

            def show(done: int, total: int, note: str) -> None:
                text = f"Project {number}: {note.lower()}"
                progress.update(bar, completed=done, total=total, description=text)

            return reconcile(
                self._client,
                self._store,
                number,
                self._settings,
                image_of=self._image_of,
                progress=show,
                dry_run=self._dry_run,
            )


def _as_dict(
    done: Sequence[Reconciled], errors: dict[int, SegZeroError], images_missing: int
) -> dict[str, Any]:
    return {
        "projects": [one.to_json() for one in done],
        "images_missing": images_missing,
        "errors": [
            {"project": number, "message": error.message, "remedy": error.remedy}
            for number, error in errors.items()
        ],
    }


def _print(done: Sequence[Reconciled], errors: dict[int, SegZeroError], dry_run: bool) -> None:
    from rich.text import Text

    console = stdout()
    if not done and not errors:
        console.print("There is no project to compare: segzero connect joins one.")
    for one in done:
        counts = ", ".join(f"{getattr(one, kind)} {kind}" for kind in _KINDS)
        title = Text(f"Project {one.project}", style="bold")
        console.print(title + f": {one.tasks} tasks, {one.annotations} annotations; {counts}.")
        _print_failures(console, one)
        if not one.is_complete:
            console.print(
                Text(
                    f"Project {one.project}: Label Studio's list of tasks contradicts itself, so "
                    "nothing was removed. Run this again when nobody imports or deletes tasks.",
                    style="yellow",
                )
            )
    for number, error in errors.items():
        console.print(Text(f"Project {number}: {error}", style="red"))
    if dry_run and done:
        console.print("Nothing was changed: this was a dry run.")


def _print_failures(console: Console, one: Reconciled) -> None:
    from rich.text import Text

    for failure in one.failures[:_SHOWN_FAILURES]:
        annotation = failure.annotation
        what = "all annotations" if annotation is None else f"annotation {annotation}"
        where = "" if failure.task is None else f" of task {failure.task}"
        line = f"Project {one.project}, {what}{where}: {failure.reason}"
        console.print(Text(line, style="yellow"))
    if one.failed > _SHOWN_FAILURES:
        console.print(f"... and {one.failed - _SHOWN_FAILURES} more; --json tells up to 100.")
