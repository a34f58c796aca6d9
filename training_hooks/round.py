"""A whole round in a process of its own: train, compare, judge, report.

```
python -m training_hooks.round --snapshot DIR --out DIR --preset tiny [--champion DIR]
```

What it leaves in the folder of the round:

```
checkpoint-*/, last/   adapters, as PEFT writes them
progress.json          how far it is; replaced after every step
result.json            the verdict and the best checkpoint; there only when the round is whole
report.html            the same for people
cancel                 put there by whoever wants the round to end at its next step
```

It publishes and promotes nothing: whoever started it does, while it still holds its lock.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from segzero_ml.adapter_files import read_adapter
from segzero_ml.errors import ModelError, WeightsError
from segzero_ml.pipeline import Pipeline
from segzero_ml.presets import get_preset
from segzero_ml.reasoner.adapters import Adapters
from segzero_ml.reasoner.local import LocalReasoner
from training_hooks.comparison import Answers, Outcome, answer_all, judge, pictures
from training_hooks.job_errors import JobCancelledError
from training_hooks.report import RoundReport, write_report
from training_hooks.report_charts import Curve
from training_hooks.round_options import RoundOptions, default_options
from training_hooks.snapshot import Snapshot
from training_hooks.train import Lesson, Step, Trained, train

_log = logging.getLogger(__name__)

PROGRESS: Final = "progress.json"
RESULT: Final = "result.json"
REPORT: Final = "report.html"
CANCEL: Final = "cancel"

_COMPARED: Final = 3
"""Checkpoints that are compared: the last ones, as the best is often not the very last."""


class Watch:
    """Tells how far the round is, and notices that it is to end.

    Args:
        folder: The round's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began = time.monotonic()

    def step(self, step: Step) -> bool:
        """Note a step; False where the round is to end."""
        seconds = time.monotonic() - self._began
        left = seconds / step.number * (step.total - step.number)
        self.say(
            phase="training",
            step=step.number,
            steps=step.total,
            seconds=round(seconds, 1),
            seconds_left=round(left, 1),
            figures=dict(step.figures),
        )
        return not self.is_cancelled

    def say(self, **what: object) -> None:
        """Replace what is said of the progress."""
        replace_file(self._folder / PROGRESS, json.dumps(what))

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


def run_round(
    snapshot: Snapshot,
    preset_name: str,
    options: RoundOptions,
    folder: Path,
    champion: Path | None = None,
) -> dict[str, Any]:
    """Run a round; goes on from its last checkpoint after a crash.

    Args:
        snapshot: What it learns from and is judged by.
        preset_name: The pair.
        options: How it learns.
        folder: The round's own; made if missing.
        champion: Folder of the adapter that serves now; None for the base.

    Returns:
        What `result.json` holds.

    Raises:
        DatasetError: There is nothing to learn from, or nothing to be judged by.
        JobCancelledError: Somebody asked for its end.
        ModelError: There is not enough memory, or no step was made.
        WeightsError: Weights cannot be loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    watch = Watch(folder)
    watch.check()
    lessons = [
        Lesson(snapshot.folder / one.image_file, one.size, one.request, one.true_masks)
        for one in snapshot.train
    ]
    trained = train(lessons, get_preset(preset_name), options, folder, watch.step)
    if trained.was_stopped:
        raise JobCancelledError("The round was cancelled.")
    outcome = compare(snapshot, preset_name, trained, champion, watch)
    result = {
        "best": outcome.best.name,
        "verdict": outcome.verdict.to_json(),
        "champion_mean_iou": outcome.champion.mean_iou,
        "checkpoint_mean_ious": list(outcome.means),
        "steps": len(trained.steps),
        "snapshot": snapshot.id,
        "preset": preset_name,
    }
    write_report(folder / REPORT, _report(snapshot, outcome, trained, folder, champion))
    replace_file(folder / RESULT, json.dumps(result))
    return result


def compare(
    snapshot: Snapshot, preset_name: str, trained: Trained, champion: Path | None, watch: Watch
) -> Outcome:
    """Have the champion and the last checkpoints answer the held-out examples; ask the gate."""
    base = Pipeline.load(preset_name)
    if not isinstance(base.reasoner, LocalReasoner):
        raise ModelError("Only a reasoner that runs on this machine can be trained.")
    adapters = Adapters(base.reasoner)
    tried = usable(trained.checkpoints)[-_COMPARED:]

    def answers(adapter: Path | None, number: int) -> Answers:
        watch.say(phase="comparing", model=number, models=len(tried) + 1)
        if adapter is None:
            return answer_all(base, snapshot.held_out, snapshot.folder, watch.check)
        on = adapters.put_on(adapter)
        try:
            pipeline = Pipeline(on, base.segmenter, base.preset)
            return answer_all(pipeline, snapshot.held_out, snapshot.folder, watch.check)
        finally:
            adapters.take_off(on)

    before = answers(champion, 1)
    after = [(path, answers(path, number)) for number, path in enumerate(tried, 2)]
    return judge(before, after, snapshot.held_out)


def usable(checkpoints: Sequence[Path]) -> list[Path]:
    """The checkpoints that changed anything, oldest first.

    The end of a round counts only where it is no checkpoint as well.

    Raises:
        ModelError: There is none.
    """
    found, reason = [], ""
    for path in checkpoints:
        try:
            read_adapter(path)
        except WeightsError as error:
            reason = error.message
            _log.warning("The checkpoint %s is left out: %s", path.name, reason)
        else:
            found.append(path)
    if not found:
        raise ModelError(
            f"The round learnt nothing: {reason}",
            "All answers to each prompt were worth the same; correct more, or other, tasks.",
        )
    saved = [path for path in found if path.name != "last"]
    return saved or found


def curves_of(steps: Sequence[Step]) -> tuple[Curve, ...]:
    """Every reward and whatever else was logged, over the steps."""
    names = dict.fromkeys(name for step in steps for name in step.figures)
    shown = [name for name in names if name.startswith("reward") or name in ("kl", "entropy")]
    return tuple(
        Curve(
            name,
            tuple(
                (float(step.number), step.figures[name]) for step in steps if name in step.figures
            ),
        )
        for name in shown
    )


def replace_file(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _report(
    snapshot: Snapshot, outcome: Outcome, trained: Trained, folder: Path, champion: Path | None
) -> RoundReport:
    project = snapshot.manifest.project
    facts: Mapping[str, str] = {
        "Snapshot": snapshot.id,
        "Learnt from": f"{len(snapshot.train)} requests",
        "Judged by": f"{len(snapshot.held_out)} requests",
        "Steps": str(len(trained.steps)),
    }
    return RoundReport(
        project=f"{project.label_studio}, project {project.project}",
        round_id=folder.name,
        champion="base" if champion is None else champion.name,
        challenger=outcome.best.name,
        finished_at=datetime.now(UTC),
        verdict=outcome.verdict,
        curves=curves_of(trained.steps),
        pictures=pictures(outcome, snapshot.held_out, snapshot.folder),
        facts=tuple(facts.items()),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a round; see the module."""
    parser = argparse.ArgumentParser(prog="python -m training_hooks.round")
    parser.add_argument("--snapshot", type=Path, required=True, help="folder of the snapshot")
    parser.add_argument("--out", type=Path, required=True, help="folder of the round")
    parser.add_argument("--preset", required=True, help="name of the preset")
    parser.add_argument("--champion", type=Path, help="folder of the adapter that serves now")
    given = parser.parse_args(arguments)
    options = default_options(given.preset)
    run_round(Snapshot.open(given.snapshot), given.preset, options, given.out, given.champion)


if __name__ == "__main__":
    main()
