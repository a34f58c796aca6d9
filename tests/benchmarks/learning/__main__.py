"""Does a project's model become better by its corrections? `make bench-learning` shows it.

For each seed: a real Label Studio, `segzero up` and a project of *shifted* scenes, which the
bundled model was not trained on. A simulated annotator goes through the predictions in Label
Studio, accepts what is right and submits exact masks for the rest. Their number starts a round of
GRPO, the gate decides, and a promoted version serves. Base and promoted version then answer
scenes that no project had. In the counter-proof the submitted masks are those of other pictures:
nothing may be promoted.

Takes about a quarter of an hour a project on two idle cores. Whatever is finished is kept in the
results folder and not done again; a project that was interrupted starts anew. Exit status 1: a
promise was not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from backend.demo.processes import local_env
from backend.demo.run import terminated_as_interrupt
from segzero_ml.durable import replace_file
from segzero_ml.errors import ConfigError, SegZeroError
from tests.benchmarks.learning.chart import Curves, chart
from tests.benchmarks.learning.findings import Learnt, checks, table
from tests.benchmarks.learning.plan import MOST_CORRECTIONS, Plan

CHART: Final = "learning.svg"
TABLE: Final = "table.md"
SUMMARY: Final = "summary.json"
PLAN: Final = "plan.json"
_TITLE: Final = "gIoU on held-out shifted scenes over one round of training"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and say what was found; see the module."""
    plan = plan_of(arguments)
    os.environ.update(local_env(os.environ))
    # Takes seconds to import: not for --help.
    from tests.benchmarks.learning.stages import Stages

    stages = Stages(plan)
    try:
        keep_to(plan)
        with terminated_as_interrupt():
            found = [stages.learnt(arm) for arm in plan.arms]
            shown = [one for one in found if not one.is_shuffled] if plan.curve else []
            curves = {"shifted": {one.name: stages.curve(one, "shifted") for one in shown}}
    except SegZeroError as error:
        stages.say(f"{error.message} {error.remedy or ''}")
        return 1
    except KeyboardInterrupt:
        stages.say("Stopped; what was finished is kept.")
        return 130
    return report(plan, found, curves if shown else {})


def keep_to(plan: Plan) -> None:
    """Note in the results folder what is asked for; results of something else are not mixed in.

    Raises:
        ConfigError: The folder holds results of another plan.
    """
    asked = {
        "corrections": plan.corrections,
        "held_out": plan.held_out,
        "plain_tasks": plan.plain_tasks,
        "settings": dict(plan.settings),
    }
    path = plan.out / PLAN
    if not path.exists():
        plan.out.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(asked, indent=1).encode())
    elif json.loads(path.read_bytes()) != asked:
        raise ConfigError(
            f"{plan.out} holds results of other settings.", "Give another folder with --out."
        )


def plan_of(arguments: Sequence[str] | None) -> Plan:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of the projects")
    parser.add_argument(
        "--shuffled-seeds", type=int, nargs="*", default=[0], help="of the counter-proof's projects"
    )
    parser.add_argument(
        "--corrections",
        type=int,
        default=MOST_CORRECTIONS,
        help="corrections after which the round starts by itself [%(default)s]",
    )
    parser.add_argument(
        "--held-out", type=int, default=300, help="scenes of each style measured on [%(default)s]"
    )
    parser.add_argument(
        "--plain-tasks",
        type=int,
        default=0,
        help="plain scenes in the project for every hundred shifted ones [%(default)s]",
    )
    parser.add_argument("--no-curve", action="store_true", help="leave the checkpoints unmeasured")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(".cache/bench-learning"),
        help="folder of the results [%(default)s]",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of segzero up, such as SEGZERO_TRAIN_MAX_STEPS=2; may be repeated",
    )
    given = parser.parse_args(arguments)
    return Plan(
        out=given.out.resolve(),
        seeds=tuple(given.seeds),
        shuffled_seeds=tuple(given.shuffled_seeds),
        corrections=given.corrections,
        held_out=given.held_out,
        plain_tasks=given.plain_tasks,
        curve=not given.no_curve,
        settings=dict(one.split("=", 1) for one in given.set),
    )


def report(plan: Plan, found: Sequence[Learnt], curves: Curves) -> int:
    """Write what was found, and print it; 1 where a promise was not kept."""
    text = table(found)
    told = {one.name: [asdict(check) for check in checks(one)] for one in found}
    replace_file(plan.out / TABLE, text.encode())
    replace_file(plan.out / SUMMARY, json.dumps(told, indent=1).encode())
    if curves:
        replace_file(plan.out / CHART, chart(curves, _TITLE).encode())
    print(f"\n{text}")
    for name, made in told.items():
        for check in made:
            print(f"{name}: {'kept' if check['holds'] else 'NOT KEPT'}: {check['text']}")
    print(f"\nAll of it lies in {plan.out}.")
    return 0 if all(check["holds"] for made in told.values() for check in made) else 1


if __name__ == "__main__":
    sys.exit(main())
