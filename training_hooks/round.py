"""A whole round in a process of its own: train, compare, judge, report.

```
python -m training_hooks.round --snapshot DIR --out DIR --preset tiny
    [--champion DIR] [--options FILE] [--note TEXT]
```

What it leaves in the folder of the round:

```
checkpoint-*/, last/   adapters, as PEFT writes them; the newest with the state of the optimiser
                       until the round is whole
blended/               those that are compared, where only a share of them is kept
cold-start/            the one before the first rewards, where there was a cold start
progress.json          how far it is; replaced after every step
golden.json            what the best one answers over which base, where it passed the gate
report.html            the verdict for people
result.json            the same for programs; there only when the round is whole
error.json             why the round cannot be done, where it says so itself
cancel                 put there by whoever wants the round to end at its next step
```

It ends with 0 when the round is whole, with 3 when it was cancelled, and with 2 for an error
that it understands, whose class, message and remedy are in `error.json` and the last line of
stderr, as JSON. It publishes and promotes nothing: whoever started it does, while it still holds
its lock.

Several processes may run one round together (`accelerate launch -m training_hooks.round ...`):
all of them train, the first one does the rest.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from segzero_ml.adapter_files import read_adapter
from segzero_ml.durable import replace_file
from segzero_ml.errors import ConfigError, ModelError, SegZeroError, WeightsError
from segzero_ml.presets import get_preset
from training_hooks.checkpoints import drop_states
from training_hooks.contest import Contest
from training_hooks.job_errors import JobCancelledError
from training_hooks.progress import Watch
from training_hooks.rehearsal import Rehearsal, rehearse
from training_hooks.report import write_report
from training_hooks.round_files import CANCELLED, ERROR, REFUSED, REPORT, RESULT
from training_hooks.round_options import RoundOptions, default_options, overridden
from training_hooks.round_report import report_of
from training_hooks.snapshot import Snapshot
from training_hooks.steps import most_promising
from training_hooks.train import Lesson, train

_log = logging.getLogger(__name__)

_COMPARED: Final = 3
"""Checkpoints that are compared: the best is often not the last."""


def run_round(
    snapshot: Snapshot,
    preset_name: str,
    options: RoundOptions,
    folder: Path,
    champion: Path | None = None,
    note: str = "",
) -> dict[str, Any] | None:
    """Run a round; goes on from its last checkpoint after a crash.

    Args:
        snapshot: What it learns from and is judged by.
        preset_name: The pair.
        options: How it learns.
        folder: The round's own; made if missing.
        champion: Folder of the adapter that serves now; None for the base.
        note: What the report is to say besides.

    Returns:
        What `result.json` holds; None in all processes but the first.

    Raises:
        DatasetError: There is nothing to learn from, or nothing to be judged by.
        JobCancelledError: Somebody asked for its end.
        ModelError: There is not enough memory, or no step was made.
        WeightsError: Weights cannot be loaded.
    """
    began = time.monotonic()
    is_first = int(os.environ.get("RANK", "0")) == 0
    folder.mkdir(parents=True, exist_ok=True)
    watch = Watch(folder, writes=is_first)
    watch.check()
    watch.say(phase="loading")
    known = _rehearsal(snapshot, options, folder)
    lessons = [
        Lesson(root / one.image_file, one.size, one.request, one.true_masks, is_rehearsed)
        for root, examples, is_rehearsed in (
            (snapshot.folder, snapshot.train, False),
            (folder, known.learnt, True),
        )
        for one in examples
    ]
    trained = train(lessons, get_preset(preset_name), options, folder, watch.step, watch.shown)
    if trained.was_stopped:
        raise JobCancelledError("The round was cancelled.")
    if not is_first:
        return None
    trained_s = time.monotonic() - began
    tried = most_promising(usable(trained.checkpoints), trained.steps, _COMPARED)
    contest = Contest(snapshot, known, preset_name, folder, champion, watch)
    outcome = contest.decide(tried, options.blend)
    costs = {"training_s": round(trained_s, 1), **_costs(began)}
    result = {
        "best": str(outcome.best.relative_to(folder)),
        "share": outcome.share,
        "verdict": outcome.verdict.to_json(),
        "mean_iou": outcome.challenger.mean_iou,
        "champion_mean_iou": outcome.champion.mean_iou,
        "checkpoint_mean_ious": list(outcome.means),
        "steps": len(trained.steps),
        "snapshot": snapshot.id,
        "preset": preset_name,
        "options": asdict(options),
        "costs": costs,
    }
    report = report_of(snapshot, outcome, trained, options, costs, folder.name, champion, note)
    write_report(folder / REPORT, report)
    replace_file(folder / RESULT, json.dumps(result).encode())
    drop_states(folder, but_newest=False)  # nobody goes on from here
    return result


def _rehearsal(snapshot: Snapshot, options: RoundOptions, folder: Path) -> Rehearsal:
    if not options.rehearsal:
        return Rehearsal()
    return rehearse(
        options.rehearsal,
        folder,
        options.rehearsed(len(snapshot.train)),
        options.rehearsal_held_out,
        options.seed,
        snapshot,
    )


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


def _costs(began: float) -> dict[str, float]:
    """What the round took; memory in GB."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    costs = {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "memory_gb": round(used.ru_maxrss * 1024 / 1e9, 2),
    }
    if torch.cuda.is_available():
        costs["gpu_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return costs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a round; see the module.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m training_hooks.round")
    parser.add_argument("--snapshot", type=Path, required=True, help="folder of the snapshot")
    parser.add_argument("--out", type=Path, required=True, help="folder of the round")
    parser.add_argument("--preset", required=True, help="name of the preset")
    parser.add_argument("--champion", type=Path, help="folder of the adapter that serves now")
    parser.add_argument("--options", type=Path, help="JSON with what differs from the preset's")
    parser.add_argument("--note", default="", help="what the report is to say besides")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        options = default_options(given.preset)
        if given.options is not None:
            options = overridden(options, _read(given.options))
        snapshot = Snapshot.open(given.snapshot)
        run_round(snapshot, given.preset, options, given.out, given.champion, given.note)
    except JobCancelledError:
        return CANCELLED
    except SegZeroError as error:
        _tell(error, given.out)
        return REFUSED
    return 0


def _tell(error: SegZeroError, folder: Path) -> None:
    """Of several processes each says it: the launcher ends the others as soon as one has."""
    what = {"error": type(error).__name__, "message": error.message, "remedy": error.remedy}
    line = json.dumps(what) + "\n"
    sys.stderr.write(line)
    draft = folder / f"{ERROR}.{os.getpid()}"
    with suppress(OSError):
        draft.write_text(line)
        draft.replace(folder / ERROR)


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"The options at {path} cannot be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
