"""`segzero train`: starts a round of training by hand, shows one that runs, or ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from backend.commands.console import JsonOption, no_worker_of, print_json, stderr, stdout

if TYPE_CHECKING:
    from redis import Redis

    from backend.learning.forecast import Forecast
    from backend.settings import Settings
    from training_hooks.policy import Decision


def train(
    project: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of the project, as in its address /projects/NUMBER.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only say what would happen, and why; exit code 1 if no round could start by "
            "hand.",
        ),
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="Show how far the round is, until it ends: the one that runs, or a new one.",
        ),
    ] = False,
    cancel: Annotated[
        bool,
        typer.Option(
            "--cancel",
            help="End the round that runs at its next step; goes with neither --dry-run nor "
            "--follow.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a project's model on its corrections, now.

    Needs 20 corrections, or as many as SEGZERO_TRAIN_MIN_CORRECTIONS says; accepted predictions
    do not count. Rounds start by themselves, too: see SEGZERO_TRAIN_* for when. A round takes a
    snapshot of the corrections, trains an adapter with rewards, and compares it with the
    version that serves on images that no round learns from. Only a better one is promoted; the
    backend follows within seconds. It runs in the worker of the queue train, which segzero up
    starts: Ctrl-C here ends the showing alone, and a worker that is killed goes on from the
    last checkpoint.

    Exit code 0: done as asked; with --follow the round is whole, promoted or not. 1: refused,
    failed or cancelled; the message says why.

    Example: `segzero train --project 7 --dry-run`

    Example: `segzero train --project 7 --follow`
    """
    if cancel and (dry_run or follow):
        raise typer.BadParameter("--cancel goes with neither --dry-run nor --follow.")
    from backend.redis_access import open_redis
    from backend.settings import load_settings

    settings = _as_served(load_settings())
    with open_redis(settings, "segzero-train") as redis:
        if cancel:
            _cancel(redis, settings, project)
        elif dry_run:
            _say_what_would_be(redis, settings, project, as_json)
        else:
            job_id = _ask(redis, settings, project, may_run=follow)
            if follow:
                from backend.commands.train_view import follow_round

                follow_round(redis, settings, project, job_id, as_json)
            elif as_json:
                print_json({"project": project, "job": job_id})


def _as_served(settings: Settings) -> Settings:
    """With the preset of the backend on this data folder, which is what rounds train."""
    from backend.data_folder import noted_preset

    served = noted_preset(settings)
    if served is None or served == settings.preset:
        return settings
    if "preset" not in settings.model_fields_set:
        return settings.model_copy(update={"preset": served})
    stderr().print(
        f"SEGZERO_PRESET is {settings.preset} here, but the backend on this data folder serves "
        f"{served}, and that is what a round trains.",
        style="yellow",
        markup=False,
    )
    return settings


def _ask(redis: Redis, settings: Settings, project: int, *, may_run: bool) -> str:
    """Ask for a round by hand; the id of its job.

    Args:
        redis: Redis.
        settings: When rounds are due.
        project: Which project.
        may_run: Take the one that waits or runs, if there is one.

    Raises:
        JobError: Nothing trains, there are too few corrections, or a round waits or runs.
    """
    from backend.jobs import ALLOWED
    from backend.learning.installed import check_somebody_trains
    from backend.learning.round_settings import round_options
    from backend.learning.train_queue import QUEUE, enqueue
    from backend.learning.trigger import look
    from segzero_ml.errors import JobError
    from training_hooks.queues import Queues

    round_options(settings)
    queues = Queues(redis, ALLOWED)
    check_somebody_trains(queues)
    decision, alive = look(redis, settings, project, by_hand=True)
    if alive is not None and may_run:
        return alive
    if not decision.train:
        raise JobError(
            f"No round was started: {decision.refusal}", _remedy(project, alive, decision)
        )
    job_id = enqueue(queues, settings, project, by_hand=True)
    if job_id is None:
        raise JobError(
            "No round was started: another one was asked for at this moment.",
            _remedy(project, "another", decision),
        )
    stderr().print(f"Asked for a round of project {project}: job {job_id}.", markup=False)
    if not queues.depth(QUEUE).workers:
        stderr().print(no_worker_of(QUEUE), style="yellow")
    return job_id


def _remedy(project: int, alive: str | None, decision: Decision) -> str:
    from training_hooks.policy import GONE

    if decision.refusal == GONE:
        return f"segzero sync --project {project} looks for it again."
    if alive is None:
        return f"Correct more tasks; segzero train --project {project} --dry-run counts them."
    return (
        f"segzero train --project {project} --follow shows it, segzero train --project {project} "
        "--cancel ends it."
    )


def _cancel(redis: Redis, settings: Settings, project: int) -> None:
    from backend.jobs import ALLOWED
    from backend.learning.cancel import cancel_round
    from training_hooks.queues import Queues

    ended = cancel_round(Queues(redis, ALLOWED), settings, project)
    console = stdout()
    if ended:
        console.print(f"The round of project {project} was cancelled.")
    else:
        console.print(
            f"The round of project {project} was asked to end; it does so at its next step. "
            "What serves stays, and the corrections stay new."
        )


def _say_what_would_be(redis: Redis, settings: Settings, project: int, as_json: bool) -> None:
    from backend.jobs import ALLOWED
    from backend.learning.forecast import forecast
    from backend.learning.installed import check_somebody_trains
    from backend.learning.trigger import look
    from segzero_ml.errors import JobError
    from training_hooks.loop_reader import LoopReader
    from training_hooks.queues import Queues
    from training_hooks.store_values import ProjectKey

    by_itself, alive = look(redis, settings, project)
    by_hand, _ = look(redis, settings, project, by_hand=True)
    key = ProjectKey(settings.label_studio_name, project)
    found = forecast(LoopReader(redis), key, settings)
    if as_json:
        fields = _as_dict(project, by_itself, by_hand, found, alive)
        print_json({**fields, "preset": settings.preset})
    else:
        _print(project, settings.preset, by_itself, found)
    if not by_hand.train:
        raise JobError(f"No round would start: {by_hand.refusal}", _remedy(project, alive, by_hand))
    if found.refusal:
        raise JobError(f"A round would end before anything is trained: {found.refusal}")
    check_somebody_trains(Queues(redis, ALLOWED))
    if not as_json:
        stdout().print(f"By hand one would start: segzero train --project {project}.")


def _print(project: int, preset: str, by_itself: Decision, found: Forecast) -> None:
    from rich.text import Text

    console = stdout()
    console.print(Text(f"Project {project}. Nothing was changed: this was a dry run.", "bold"))
    if by_itself.train:
        console.print(Text("By itself a round would start now: " + " ".join(by_itself.reasons)))
    else:
        console.print(Text(f"By itself no round would start now. {by_itself.refusal}"))
        for reason in by_itself.reasons:
            console.print(Text(f"  Though this asks for one: {reason}"))
    console.print(
        f"It would learn from {found.new} new corrections, {found.older} older ones and "
        f"{found.accepted} accepted predictions, and be judged by {found.held_out} corrections "
        f"held out, of {found.held_out_images} images."
    )
    options = found.options
    console.print(
        f"Preset {preset}: {found.prompts} requests with what is rehearsed, "
        f"{options.prompts_per_step} a step with {options.rollouts} answers each: about "
        f"{found.steps} steps. Learning rate {options.learning_rate:g}, rank {options.rank}."
    )


def _as_dict(
    project: int, by_itself: Decision, by_hand: Decision, found: Forecast, alive: str | None
) -> dict[str, Any]:
    """Its keys are a promise to scripts: add to them, never change one."""
    from dataclasses import asdict

    return {
        "project": project,
        "job": alive,
        "by_itself": asdict(by_itself),
        "by_hand": asdict(by_hand),
        **asdict(found),
    }
