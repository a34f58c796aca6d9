"""The whole loop for one project: corrected through Label Studio, trained, judged, served."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

from backend.demo.follow import follow
from backend.demo.tasks import newest_prediction, retrieve_all
from backend.model_folders import registry_of
from tests.benchmarks.learning.cpu import CpuWatch
from tests.benchmarks.learning.plan import Arm, Plan
from tests.benchmarks.learning.project import Corrected, correct
from tests.benchmarks.learning.servers import Servers, servers

Say = Callable[[str], None]


def run(plan: Plan, arm: Arm, say: Say) -> dict[str, Any]:
    """Go through it from nothing; what an earlier try left is dropped.

    Returns:
        What happened, ready for JSON. `champion` and `round_folder` name folders.

    Raises:
        SegZeroError: A step of it failed.
    """
    folder = plan.folder(arm)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = {
        "SEGZERO_TRAIN_EVERY_CORRECTIONS": str(plan.corrections),
        "SEGZERO_TRAIN_SEED": str(arm.seed),
        # By their number alone: how many were learnt from is told.
        "SEGZERO_TRAIN_QUALITY_DROP": "0",
        **plan.settings,
    }
    with servers(folder, settings) as running:
        say("Label Studio and segzero up are there")
        with CpuWatch(running.up.pid) as cpu:
            corrected = correct(plan, arm, running, say)
            settled = time.monotonic()
            found = follow(running.settings, corrected.project, say)
            waited = time.monotonic() - settled
        served = _next_prediction(running, corrected, promoted=bool(found.version))
        return {
            "arm": arm.name,
            "settings": settings,
            "project": corrected.project,
            "base": corrected.model_version,
            "annotator": corrected.to_json(),
            "round": found.to_json(),
            "steps": found.step,
            "wall_seconds": round(waited, 1),
            "cpu_seconds": round(cpu.seconds, 1),
            "promoted": bool(found.version),
            "served": served,
            "registry": str(registry_of(running.settings, corrected.project).folder),
            "round_folder": found.folder,
        }


def _next_prediction(running: Servers, corrected: Corrected, *, promoted: bool) -> str | None:
    """The version of what Label Studio shows next, asked for as its user would; None: the old.

    A picture may go without a readable answer: one that is shown of those asked for is enough.

    Raises:
        LabelStudioError: Label Studio refuses something.
    """
    version = corrected.model_version
    for _ in range(30 if promoted else 1):
        version = running.client.project(corrected.project).model_version
        if version != corrected.model_version:
            break
        time.sleep(2)
    else:
        return None
    retrieve_all(running.client, corrected.project, corrected.spare, version)
    tasks = {task.id: task for task in running.client.tasks(corrected.project)}
    have = [newest_prediction(tasks[number], version) for number in corrected.spare]
    return version if any(have) else None
