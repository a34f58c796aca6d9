"""`segzero preannotate` and `segzero refresh`: predictions for whole projects."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Final

import typer

from backend.commands.console import JsonOption, print_json, stderr, stdout

if TYPE_CHECKING:
    from redis import Redis

    from backend.preannotate.plan import Plan, Selection
    from backend.preannotate.watch import Standing
    from backend.settings import Settings

SOME_FAILED: Final = 3
"""Exit code where some tasks have no prediction; the reasons are listed."""

_SHOWN_FAILURES: Final = 20
_PATIENCE_S: Final = 120.0

ProjectOption = Annotated[
    int,
    typer.Option(
        "--project",
        min=1,
        help="Number of the project, as in its address /projects/NUMBER.",
        show_default=False,
    ),
]
FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="FIELD=PATTERN",
        help="Only tasks whose data has this text in this field; * and ? stand for anything. "
        "Several must all hold.",
        show_default=False,
    ),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Most tasks.", show_default=False)
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        max=64,
        help="Workers to start for this run, besides those that run already "
        "[default: 2 if none runs]",
        show_default=False,
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
UnannotatedOption = Annotated[
    bool, typer.Option("--unannotated", help="Only tasks without an annotation.")
]


def preannotate(
    project: ProjectOption,
    filters: FilterOption = None,
    unannotated: UnannotatedOption = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Only tasks with predictions of another version.")
    ] = False,
    limit: LimitOption = None,
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Predict every task of a project.

    Each gets a prediction of the project's present model version; tasks that have one are
    skipped. The work is done by workers of the queue predict, which ask the running backend:
    annotators go first. Ctrl-C ends the watching, not the work; run it again to go on watching,
    or after anything was killed: nothing is done twice.

    Needs SEGZERO_LABEL_STUDIO_URL and SEGZERO_LABEL_STUDIO_TOKEN, Redis, and the backend.

    Exit code 0: all have one. 1: it could not be done. 3: some tasks failed, named with reasons.

    Example: `segzero preannotate --project 7 --filter "request=*red*" --limit 500`
    """
    from backend.preannotate.plan import Selection

    selection = Selection.parse(filters or (), unannotated=unannotated, stale=stale, limit=limit)
    _run(project, selection, workers, dry_run, as_json)


def refresh(
    project: ProjectOption,
    filters: FilterOption = None,
    unannotated: UnannotatedOption = False,
    limit: LimitOption = None,
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Renew predictions of older models.

    Tasks whose predictions an older model version made get one of the present version.
    Annotations and the older predictions stay as they are; tasks without any prediction are
    left alone. Otherwise as `segzero preannotate`. SEGZERO_REFRESH_AFTER_PROMOTION does it by
    itself.

    Example: `segzero refresh --project 7 --dry-run`
    """
    from backend.preannotate.plan import Selection

    selection = Selection.parse(filters or (), unannotated=unannotated, stale=True, limit=limit)
    _run(project, selection, workers, dry_run, as_json)


def _run(
    project: int, selection: Selection, workers: int | None, dry_run: bool, as_json: bool
) -> None:
    from backend.preannotate.plan import enqueue
    from backend.redis_access import open_redis
    from backend.settings import load_settings
    from training_hooks.redis_client import probe

    settings = load_settings()
    with open_redis(settings, "segzero-preannotate") as redis:
        probe(redis)
        plan = _make_plan(settings, project, selection)
        if dry_run or not plan.tasks:
            _say_plan(plan, dry_run, as_json)
            return
        enqueue(plan, redis, settings.label_studio_name)
        try:
            standing = _watch(settings, plan, redis, workers)
        except KeyboardInterrupt:
            stderr().print(
                "\nNo longer watching. What is queued waits for the workers of segzero up; run "
                "this again to see how far it is."
            )
            raise typer.Exit(130) from None
    _say_result(plan, standing, as_json)
    if standing.failed:
        raise typer.Exit(SOME_FAILED)


def _make_plan(settings: Settings, project: int, selection: Selection) -> Plan:
    from backend.preannotate.asking import Backend, patiently
    from backend.preannotate.plan import make_plan
    from backend.reconcile.projects import open_label_studio

    console = stderr()
    with ExitStack() as stack:
        client = stack.enter_context(open_label_studio(settings))
        backend = stack.enter_context(Backend(settings))
        with console.status(f"Asking {backend.url} for the model version"):
            version = patiently(lambda: backend.version(project), _PATIENCE_S)
        with console.status("Listing the tasks") as status:

            def show(done: int, total: int) -> None:
                status.update(f"Listing the tasks: {done} of {total}")

            return make_plan(client, project, version, selection, show)


def _watch(settings: Settings, plan: Plan, redis: Redis, workers: int | None) -> Standing:
    """A bar with the time left, until all tasks are settled."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from backend.preannotate.watch import watch
    from backend.preannotate.workers import started

    console = stderr()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    with (
        started(settings, redis, workers),
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task(f"Project {plan.project}", total=len(plan.tasks))

        def show(now: Standing) -> None:
            text = f"Project {plan.project}"
            if now.failed:
                text += f", {len(now.failed)} failed"
            if not now.workers:
                text += ", waiting for a worker"
            progress.update(bar, completed=now.total - now.waiting, description=text)

        return watch(plan, redis, settings.label_studio_name, show)


def _say_plan(plan: Plan, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "project": plan.project,
                "version": plan.version,
                "total": plan.total,
                "tasks": list(plan.tasks),
                "dry_run": dry_run,
            }
        )
    elif not plan.tasks:
        stdout().print(
            f"Nothing to do: no task that is meant lacks a prediction of {plan.version}."
        )
    else:
        stdout().print(
            f"{len(plan.tasks)} tasks of {plan.total} would get a prediction of {plan.version}. "
            "Nothing was changed: this was a dry run."
        )


def _say_result(plan: Plan, standing: Standing, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "project": plan.project,
                "version": plan.version,
                "done": standing.done,
                "failed": {str(task): why for task, why in standing.failed.items()},
            }
        )
        return
    console = stdout()
    console.print(
        f"{standing.done} tasks have a prediction of {plan.version}, {len(standing.failed)} failed."
    )
    from rich.text import Text

    for task, why in sorted(standing.failed.items())[:_SHOWN_FAILURES]:
        console.print(Text(f"Task {task}: {why}", style="yellow"))
    if len(standing.failed) > _SHOWN_FAILURES:
        more = len(standing.failed) - _SHOWN_FAILURES
        console.print(f"... and {more} more; --json tells all.")
