"""Shows a round of training until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import typer

from backend.commands.console import print_json, stderr, stdout
from backend.learning.folders import loop_name
from backend.learning.round_state import Phase, RoundState, read_state
from backend.learning.round_words import one_line
from segzero_ml.errors import JobError, StoreError
from training_hooks.snapshot_manifest import left_out_words

if TYPE_CHECKING:
    from redis import Redis
    from rich.progress import Progress, TaskID

    from backend.settings import Settings
    from training_hooks.queues import JobView, Queues

LOOK_EVERY_S: Final = 0.5
_PATIENCE_S: Final = 120.0
"""How long Redis may be away before this gives up."""


@dataclass(frozen=True, slots=True)
class Look:
    """A round at one moment.

    Args:
        state: How it stands; None before it begins.
        job: Its job; None where that is forgotten.
    """

    state: RoundState | None
    job: JobView | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        if self.state is not None and self.state.phase.is_over:
            return True
        return self.job is None or self.job.status in ("finished", "failed", "canceled", "stopped")


def follow_round(
    redis: Redis, settings: Settings, project: int, job_id: str, as_json: bool
) -> None:
    """Show a round until it ends, and say what came of it.

    Args:
        redis: Redis.
        settings: The name of this Label Studio.
        project: Which project.
        job_id: The round's job.
        as_json: One JSON object a line whenever something changed, and nothing else.

    Raises:
        JobError: It failed, was cancelled, or turned out not to be due.
        StoreError: Redis was away for too long.
    """
    looks = _looks(redis, settings, project, job_id)
    last = Look(None, None)
    try:
        if as_json:
            for last in looks:
                if last.state is not None:
                    print_json(last.state.to_json())
        else:
            last = _show(looks)
    except KeyboardInterrupt:
        typer.echo("\nThe round goes on; --follow shows it again, --cancel ends it.", err=True)
        raise typer.Exit(130) from None
    _conclude(last, as_json)


def _looks(redis: Redis, settings: Settings, project: int, job_id: str) -> Iterator[Look]:
    """What changes, up to the end."""
    from backend.jobs import ALLOWED
    from training_hooks.queues import Queues

    queues, name = Queues(redis, ALLOWED), loop_name(settings, project)
    seen: object = None
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            job = _find(queues, job_id)
            state = read_state(redis, name)
        except StoreError:
            if time.monotonic() > give_up:
                raise
            time.sleep(LOOK_EVERY_S)
            continue
        give_up = time.monotonic() + _PATIENCE_S
        look = Look(state if state is not None and state.job == job_id else None, job)
        key = (look.state, None if job is None else job.status)
        if key != seen:
            seen = key
            yield look
        if look.is_over:
            return
        time.sleep(LOOK_EVERY_S)


def _find(queues: Queues, job_id: str) -> JobView | None:
    try:
        return queues.find(job_id)
    except JobError:
        return None


def _show(looks: Iterator[Look]) -> Look:
    """A bar on a terminal, lines elsewhere; the last look."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = stderr()
    if not console.is_terminal:
        return _lines(looks)
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    last = Look(None, None)
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("Waiting in the queue", total=None)
        for last in looks:
            _move(progress, bar, last)
    return last


def _move(progress: Progress, bar: TaskID, look: Look) -> None:
    state = look.state
    if state is None:
        return
    counting = (Phase.SNAPSHOT, Phase.COLD_START, Phase.TRAINING)
    counts = state.phase in counting and state.steps
    total = state.steps if counts else None
    progress.update(bar, completed=state.step, total=total, description=_line(state))


def _lines(looks: Iterator[Look]) -> Look:
    last, said = Look(None, None), ""
    for last in looks:
        line = "Waiting in the queue" if last.state is None else _line(last.state)
        if line != said and not last.is_over:
            typer.echo(line, err=True)
        said = line
    return last


def _line(state: RoundState) -> str:
    """Where a round is, and why it waits if it does."""
    why = f". {state.text}" if state.phase is Phase.WAITING and state.text else ""
    return one_line(state) + why


def _conclude(look: Look, as_json: bool) -> None:
    """Say what came of it; raises unless the round is whole."""
    from rich.text import Text

    state = look.state
    if state is None:
        status = "forgotten" if look.job is None else look.job.status
        raise JobError(
            f"The job ended without a round: it is {status}.",
            "segzero train --dry-run says what asks for a round; segzero status shows failures.",
        )
    if state.phase is Phase.CANCELLED:
        raise JobError(state.text or "The round was cancelled.", "What served serves on.")
    if state.phase is Phase.REFUSED:
        raise JobError(f"Nothing was trained: {state.text}", "The corrections stay new.")
    if not state.phase.is_whole:
        reason = state.text or "its process died at the last try."
        raise JobError(f"The round failed: {reason}", "What served serves on.")
    if as_json:
        return
    console = stdout()
    promoted = state.phase is Phase.PROMOTED
    title = f"{state.version} was promoted." if promoted else "The champion stays."
    console.print(Text(title, style="bold green" if promoted else "bold"))
    for reason in (*state.verdict, *([state.remark] if state.remark else [])):
        console.print(Text(f"  {reason}"))
    if state.left_out:
        console.print(Text(f"Corrections left out: {left_out_words(state.left_out)}."))
    peak = state.peak_memory_bytes / 1e9
    console.print(Text(f"It took {state.seconds:.0f} s and {peak:.1f} GB of memory at most."))
    if state.report:
        console.print(Text(f"Report: {state.report}"), soft_wrap=True)
