"""The stages of a run, each kept as a JSON file when it is done and never done twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from segzero_ml.durable import replace_file
from segzero_ml.tiny.scenes import Style
from tests.benchmarks.learning import loop
from tests.benchmarks.learning.chart import Point
from tests.benchmarks.learning.findings import STYLES, Learnt
from tests.benchmarks.learning.measure import Models, checkpoints_of
from tests.benchmarks.learning.plan import Arm, Plan

Stage = Callable[[], dict[str, Any]]


class Stages:
    """Does what is missing of a run.

    Args:
        plan: What is asked for.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line of progress."""
        print(f"[{(time.monotonic() - self._began) / 60:5.1f} min] {text}", flush=True)

    def learnt(self, arm: Arm) -> Learnt:
        """One project, gone through and measured."""
        happened = self._kept(
            self._plan.folder(arm) / "loop.json",
            lambda: loop.run(self._plan, arm, lambda text: self.say(f"{arm.name}: {text}")),
        )
        before = {
            style: self._kept(
                self._plan.out / f"base-{style}.json", partial(self._models.base, style)
            )
            for style in STYLES
        }
        after = before
        if happened["promoted"]:
            champion = partial(self._models.champion, Path(happened["registry"]))
            after = {
                style: self._kept(
                    self._plan.folder(arm) / f"champion-{style}.json", partial(champion, style)
                )
                for style in STYLES
            }
        return Learnt(arm.name, arm.is_shuffled, happened, before, after)

    def curve(self, one: Learnt, style: Style) -> list[Point]:
        """The gIoU of every checkpoint of a project's round over its steps, from the base on."""
        points = [(0.0, float(one.before[style]["gIoU"]))]
        for step, folder in checkpoints_of(Path(one.loop["round_folder"])):
            report = self._kept(
                self._plan.out / one.name / f"{folder.name}-{style}.json",
                partial(self._models.checkpoint, folder, style),
            )
            points.append((float(step), float(report["gIoU"])))
        return points

    @cached_property
    def _models(self) -> Models:
        return Models(self._plan.held_out, self.say)

    def _kept(self, path: Path, do: Stage) -> dict[str, Any]:
        if not path.exists():
            done = do()
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(done, indent=1).encode())
        found: dict[str, Any] = json.loads(path.read_text())
        return found
