"""How far a round is, in its folder: said by the round, read by whoever started it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from segzero_ml.durable import replace_file
from training_hooks.job_errors import JobCancelledError
from training_hooks.round_files import CANCEL, PROGRESS
from training_hooks.steps import Step


class Watch:
    """Tells how far the round is, and notices that it is to end.

    Args:
        folder: The round's.
        writes: Whether this process says anything; of several that train together one does.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self._folder = folder
        self._writes = writes
        self._began = time.monotonic()
        self._first: int | None = None

    def step(self, step: Step) -> bool:
        """Note a step; False where the round is to end."""
        seconds = time.monotonic() - self._began
        if self._first is None:  # a round that goes on made its first steps earlier
            self._first = step.number - 1
        left = seconds / (step.number - self._first) * (step.total - step.number)
        self.say(
            phase="training",
            step=step.number,
            steps=step.total,
            seconds=round(seconds, 1),
            seconds_left=round(left, 1),
            figures=dict(step.figures),
        )
        return not self.is_cancelled

    def shown(self, done: int, of: int) -> None:
        """Note a batch of the cold start.

        Raises:
            JobCancelledError: Somebody asked for the round's end.
        """
        seconds = time.monotonic() - self._began
        left = seconds / done * (of - done)
        self.say(phase="cold start", step=done, steps=of, seconds_left=round(left, 1))
        self.check()

    def say(self, **what: object) -> None:
        """Replace what is said of the progress."""
        if self._writes:
            replace_file(self._folder / PROGRESS, json.dumps(what).encode())

    def check(self) -> None:
        """End the round here if somebody asked for it.

        Raises:
            JobCancelledError: Somebody did.
        """
        if self.is_cancelled:
            raise JobCancelledError("The round was cancelled.")

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked for the end."""
        return (self._folder / CANCEL).exists()
