"""What the demo prints: its steps as they go, the table, and what to try next."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from backend.demo import evening
from backend.demo.state import BACKEND_PORT, Folder, State, evening_project
from backend.demo.tasks import Outcome

Say = Callable[[str], None]
"""Shows how far a step is."""

_DETAIL_LENGTH: Final = 60
_TO_TRY: Final = (
    "",
    "Then try:",
    "- Click a task: mask and reasons are there. Mend the mask with brush or",
    "  eraser and press Submit.",
    "- Switch on Auto-Annotation below the picture and type another request",
    '  into the box beside it, such as "the leftmost shape"; Enter asks.',
    "- Order the list by Prediction score: the doubtful ones come first.",
    "- Your own project: segzero template, segzero up, then segzero connect.",
    "",
    "Ctrl-C stops everything. The next make demo goes on with this project;",
    "make demo FRESH=1 drops it and starts anew.",
)

_TO_TEACH: Final = (
    "",
    "The model was never shown such pictures and gets many of them wrong. Mend",
    "its masks with brush and eraser; where nothing matches, delete them all;",
    "Submit. What is right, submit as it is: it counts among the judges.",
    "",
    f"{evening.CORRECTIONS} corrections start a round of training by themselves. It takes some",
    "minutes, and a model that is better on pictures it did not learn from is",
    "promoted: Label Studio shows it on the next prediction.",
)


class Steps:
    """Numbers the steps, and shows that something happens during each.

    Args:
        console: Where to.
        total: How many steps there are.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[Say]:
        """One step; gives a function that shows how far it is."""
        self._number += 1
        head = f"[{self._number}/{self._total}] {title}"
        started = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(Text(f"{head} …"))
        with self._console.status(Text(head)) as status:
            yield lambda detail: status.update(
                Text.assemble(head, (f"  {detail[:_DETAIL_LENGTH]}", "dim"))
            )
        seconds = time.monotonic() - started
        self._console.print(Text.assemble(("✓ ", "green"), head, (f"  {seconds:.0f} s", "dim")))


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """One row a task."""
    table = Table("Task", "Request", "Note", "Score", "IoU", show_lines=True)
    for row in outcomes:
        iou = "-" if row.iou is None else f"{row.iou:.2f}"
        note = row.note if row.has_target else f"{row.note} (true: nothing there)"
        table.add_row(
            Text(str(row.task_id)),
            Text(row.request),
            Text(note if row.iou is not None else "no prediction", style=_style(row)),
            "-" if row.score is None else f"{row.score:.2f}",
            Text(iou, style=_style(row)),
        )
    return table


def summary_of(outcomes: Sequence[Outcome]) -> str:
    """The figures under the table."""
    known = [row.iou for row in outcomes if row.iou is not None]
    mean = sum(known) / len(known) if known else 0.0
    return (
        f"{len(known)} of {len(outcomes)} tasks have their prediction; mean IoU with the known "
        f"truth {mean:.2f}."
    )


def what_next(state: State) -> Panel:
    """The address, the login, and what to try."""
    page = f"{state.label_studio_url}/projects/{state.project_id}"
    lines = [
        Text.assemble("Open      ", (page, "bold cyan")),
        Text.assemble("E-mail    ", (state.user.email, "bold")),
        Text.assemble("Password  ", (state.user.password, "bold")),
        *map(Text, _TO_TRY),
    ]
    return Panel(Text("\n").join(lines), title="Label Studio is ready", expand=False)


def how_to_look(state: State, folder: Folder) -> Text:
    """How to see corrections arrive. To be printed without breaking lines, for copying."""
    return Text.assemble(
        "See how your corrections arrive, from another terminal:\n    ",
        (status_command(state, folder), "bold cyan"),
    )


def how_to_teach(state: State) -> Panel:
    """The second project, and what to do there."""
    page = f"{state.label_studio_url}/projects/{evening_project(state)}"
    lines = [Text.assemble("Open      ", (page, "bold cyan")), *map(Text, _TO_TEACH)]
    return Panel(Text("\n").join(lines), title="Teach it", expand=False)


def teaching_commands(state: State, folder: Folder) -> Text:
    """What to type while the model learns. To be printed without breaking lines."""
    project = evening_project(state)
    default = folder.root == Path(".demo").resolve()
    more = "" if default else f" ARGS={shlex.quote(f'--folder {_short(folder.root)}')}"
    commands = {
        "Have a simulated annotator correct what is left, with the exact masks": (
            f"make demo-correct{more}"
        ),
        "Follow the training": segzero_command(
            state, folder, f"train --project {project} --follow"
        ),
        "See which version serves": segzero_command(state, folder, f"models --project {project}"),
    }
    parts = [(f"{what}:\n    ", (command, "bold cyan"), "\n") for what, command in commands.items()]
    return Text.assemble(*(piece for part in parts for piece in part), end="")


def status_command(state: State, folder: Folder) -> str:
    """How to ask for the state of the demo's SegZero, from the current folder."""
    return segzero_command(state, folder, "status")


def segzero_command(state: State, folder: Folder, arguments: str) -> str:
    """A `segzero` command for the demo's SegZero, from the current folder."""
    settings = [f"SEGZERO_DATA_DIR={_short(folder.segzero)}"]
    if state.backend_port != BACKEND_PORT:
        settings.append(f"SEGZERO_PORT={state.backend_port}")
    return " ".join([*settings, _short(Path(sys.executable).with_name("segzero")), arguments])


def _short(path: Path) -> str:
    """A path for the shell, as seen from the current folder where that is shorter."""
    near = os.path.relpath(path)
    return shlex.quote(str(path) if near.startswith("..") else near)


def _style(row: Outcome) -> str:
    if row.iou is None:
        return "red"
    return "green" if row.iou >= 0.7 else "yellow"
