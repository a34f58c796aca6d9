"""`python -m backend.demo.correct`: a simulated annotator for the demo that is running.

It corrects evening scenes with their exact masks through Label Studio's API, as a person does in
the editor, until the number of corrections starts a round of training; then it waits for the
round's end, and shows what the model that serves makes of pictures that nobody corrected.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.demo import evening
from backend.demo.annotator import Submitted, Truth, annotate, brush_of
from backend.demo.follow import follow, newest_round
from backend.demo.processes import ProcessError, local_env
from backend.demo.state import Folder, State, evening_project, saved_state
from backend.demo.tasks import Outcome, outcome
from backend.label_studio import LabelStudio
from backend.label_studio_models import Project, Task
from backend.learning.round_state import Phase, RoundState
from backend.redis_access import open_redis
from backend.settings import Settings, load_settings
from segzero_ml.corrections import Verdict
from segzero_ml.datasets import Sample
from segzero_ml.errors import SegZeroError
from segzero_ml.types import ImageSize
from training_hooks.loop_reader import LoopReader
from training_hooks.store_values import ProjectKey

AT_ONCE: Final = 12
COMPARED: Final = 12
"""Tasks that nobody corrects: what is shown before and after."""

_SWAP_S: Final = 120.0


class Correcting:
    """The simulated annotator at one project.

    Args:
        client: The demo's Label Studio.
        settings: Of the demo's SegZero.
        project: The project.
        console: Where to show what happens.
    """

    def __init__(
        self, client: LabelStudio, settings: Settings, project: Project, console: Console
    ) -> None:
        self._client = client
        self._settings = settings
        self._project = project
        self._console = console

    def until_a_round_begins(self, spare: Sequence[int]) -> None:
        """Correct tasks in their order, some at a time, until enough corrections are new.

        Args:
            spare: Tasks to be left alone.

        Raises:
            ProcessError: There are not enough tasks.
        """
        todo = [one for one in self._tasks() if not one.annotations and one.id not in spare]
        missing = evening.CORRECTIONS - self._new_corrections()
        done: list[Submitted] = []
        with self._console.status("Correcting") as status:
            for start in range(0, len(todo), AT_ONCE):
                if missing <= 0:
                    break
                made = self._correct(todo[start : start + AT_ONCE], missing)
                done += made
                missing -= sum(not one.accepted for one in made)
                corrected = sum(not one.accepted for one in done)
                status.update(
                    f"{len(done)} tasks annotated, {corrected} of them corrected; {missing} "
                    "more corrections start a round"
                )
        corrected = sum(not one.accepted for one in done)
        self._console.print(f"{len(done)} tasks annotated, {corrected} of them corrected.")
        if missing > 0:
            raise ProcessError(
                f"Every task has its annotation, and {missing} corrections are missing.",
                "Start anew: make demo FRESH=1.",
            )

    def look(self, tasks: Sequence[int]) -> list[Outcome]:
        """What the model that serves makes of tasks, retrieved by Label Studio."""
        version = self._version()
        chosen = [one for one in self._tasks() if one.id in tasks]
        evening.predict_some(self._client, self._project.id, chosen, version)
        return [
            outcome(one, sample, version)
            for one in self._tasks()
            if one.id in tasks and (sample := evening.sample_of(one)) is not None
        ]

    def wait_for(self, old: str | None) -> None:
        """Wait until Label Studio knows of another version.

        Raises:
            ProcessError: It does not, for too long.
        """
        give_up = time.monotonic() + _SWAP_S
        while self._version() == old:
            if time.monotonic() > give_up:
                raise ProcessError("The promoted version is not served.", "See segzero models.")
            time.sleep(1)

    def spare(self) -> list[int]:
        """The last tasks that nobody has corrected."""
        return [one.id for one in self._tasks() if not one.annotations][-COMPARED:]

    def _correct(self, tasks: Sequence[Task], most: int) -> list[Submitted]:
        version = self._version()
        evening.predict_some(self._client, self._project.id, tasks, version)
        wanted = {one.id for one in tasks}
        fresh = [one for one in self._tasks() if one.id in wanted]
        truths = {
            one.id: _truth(sample)
            for one in fresh
            if (sample := evening.sample_of(one)) is not None
        }
        brush = brush_of(self._project.label_config)
        return annotate(self._client, fresh, truths, brush, version, most)

    def _tasks(self) -> list[Task]:
        return self._client.tasks(self._project.id)

    def _version(self) -> str | None:
        return self._client.project(self._project.id).model_version

    def _new_corrections(self) -> int:
        key = ProjectKey(self._settings.label_studio_name, self._project.id)
        with closing(open_redis(self._settings)) as redis:
            reader = LoopReader(redis)
            rows = reader.learnt_after(key, reader.trained_until(key), evening.TASKS)
        return sum(row.verdict is not Verdict.ACCEPTED for row in rows)


def run(folder: Folder, project_id: int | None, console: Console) -> RoundState:
    """Correct until a round begins, wait for its end, and show what came of it.

    Args:
        folder: That of the running demo.
        project_id: Which project; None for that of evening scenes.
        console: Where to show it.

    Returns:
        The round as it ended.

    Raises:
        SegZeroError: The demo does not run, or a step failed.
    """
    os.environ.update(local_env(os.environ))
    state = _running(folder)
    settings = load_settings(data_dir=folder.segzero)
    with LabelStudio(state.label_studio_url, state.user.token) as client:
        project = client.project(project_id or evening_project(state))
        correcting = Correcting(client, settings, project, console)
        earlier = newest_round(settings, project.id)
        if earlier is not None and not earlier.phase.is_over:
            raise ProcessError("A round of training is running.", "Wait for its end.")
        version, spare = project.model_version, correcting.spare()
        before = correcting.look(spare)
        correcting.until_a_round_begins(spare)
        ended = follow(settings, project.id, console.print, earlier)
        for reason in ended.verdict:
            console.print(f"- {reason}", markup=False, soft_wrap=True)
        if ended.phase is Phase.PROMOTED:
            correcting.wait_for(version)
            console.print(compared(before, correcting.look(spare)))
        if ended.report:
            console.print(f"The report: {ended.report}", markup=False, soft_wrap=True)
    return ended


def compared(before: Sequence[Outcome], after: Sequence[Outcome]) -> Table:
    """One row a task, and the means: what was shown before, and what is now."""
    table = Table("Task", "Request", "IoU before", "IoU now")
    then = {one.task_id: one for one in before}
    for now in after:
        table.add_row(
            str(now.task_id), Text(now.request), _figure(then.get(now.task_id)), _figure(now)
        )
    table.add_section()
    table.add_row("", "mean", f"{_mean(before):.2f}", f"{_mean(after):.2f}", style="bold")
    return table


def _running(folder: Folder) -> State:
    state = saved_state(folder)
    if state is None:
        raise ProcessError(f"There is no demo in {folder.root}.", "Start it first: make demo.")
    return state


def _truth(sample: Sample) -> Truth:
    picture = sample.image()
    return Truth(ImageSize(picture.width, picture.height), sample.masks)


def _figure(one: Outcome | None) -> str:
    return "no answer" if one is None or one.iou is None else f"{one.iou:.2f}"


def _mean(outcomes: Sequence[Outcome]) -> float:
    return sum(one.iou or 0.0 for one in outcomes) / max(1, len(outcomes))


def correct(
    project: Annotated[
        int | None,
        typer.Option(
            min=1, help="Which project [default: that of evening scenes]", show_default=False
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="That of the running demo.")] = Path(".demo"),
) -> None:
    """Correct the running demo's evening scenes until a round of training begins, and follow it.

    A simulated annotator submits exact masks through Label Studio's API. Exit code 1: the round
    failed, was refused or cancelled.
    """
    from backend.cli import show_error

    try:
        ended = run(Folder(folder.resolve()), project, Console(highlight=False))
    except SegZeroError as error:
        show_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("Stopped. A round that has begun goes on.", err=True)
        sys.exit(130)
    sys.exit(0 if ended.phase.is_whole else 1)


if __name__ == "__main__":
    typer.run(correct)
