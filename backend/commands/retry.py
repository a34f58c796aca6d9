"""`segzero retry`: gives failed jobs another try."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from backend.commands.console import no_worker_of, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from training_hooks.dead_letters import DeadLetter
    from training_hooks.queues import Queues

_SHOWN: Final = 20


def retry(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB", help="Id of the job, as segzero status shows it.", show_default=False
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that failed, except what is refused.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be tried again.")
    ] = False,
) -> None:
    """Bring failed jobs back to their queue, with all their tries.

    Give a job or --all. Refused jobs, whose function is not one of this project's, stay where
    they are.

    Example: `segzero retry --all --dry-run`
    """
    if (job is not None) == everything:
        raise typer.BadParameter("Give a job or --all.")
    from backend.jobs import ALLOWED
    from backend.redis_access import open_redis
    from backend.settings import load_settings
    from training_hooks.dead_letters import DeadLetters
    from training_hooks.queues import Queues

    console = stdout()
    with open_redis(load_settings(), "segzero-retry") as client:
        letters = DeadLetters(client, ALLOWED)
        if dry_run:
            total = sum(letters.count().values())
            _say_what_would_be(console, letters.list(max(1, total)), job)
            return
        done = letters.retry(job)
        console.print(f"Brought back to their queues: {done} job{'' if done == 1 else 's'}.")
        if done:
            _warn_of_missing_workers(console, Queues(client, ALLOWED))


def _say_what_would_be(console: Console, letters: Sequence[DeadLetter], job: str | None) -> None:
    from rich.text import Text

    from training_hooks.dead_letters import no_such_job

    asked = [letter for letter in letters if job in (None, letter.job_id)]
    if job is not None and not asked:
        raise no_such_job(job)
    chosen = [letter for letter in asked if letter.can_retry]
    for letter in chosen[:_SHOWN]:
        console.print(Text(f"  {letter.job_id}  {letter.function}: {letter.reason}"))
    if len(chosen) > _SHOWN:
        console.print(f"  and {len(chosen) - _SHOWN} more")
    refused = len(asked) - len(chosen)
    console.print(f"Would be tried again: {len(chosen)}. Refused, would stay: {refused}.")


def _warn_of_missing_workers(console: Console, queues: Queues) -> None:
    from training_hooks.queues import QueueName

    for name in QueueName:
        depth = queues.depth(name)
        if depth.waiting and not depth.workers:
            console.print(no_worker_of(name), style="yellow")
