"""One project: scenes go in, predictions come, and a simulated annotator corrects them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from PIL import Image

from backend.demo.annotator import Brush, Submitted, Truth, annotate, brush_of
from backend.demo.processes import ProcessError, local_env
from backend.demo.tasks import import_samples, retrieve_all
from backend.templates import labelling_config
from segzero_ml.datasets import Sample
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.types import BoolMask, ImageSize
from tests.benchmarks.learning.plan import PROJECT_PLAIN_SEED, PROJECT_SEED, Arm, Plan
from tests.benchmarks.learning.servers import Servers

_AT_ONCE: Final = 40
_MOST_TASKS: Final = 1200
_SPARE: Final = 8
"""Tasks that nobody annotates: on them the next prediction is looked at."""


@dataclass(slots=True)
class Corrected:
    """What the annotator did.

    Args:
        project: Id of the project.
        model_version: The version that predicted.
        spare: Tasks that were left.
        submitted: What became of the others.
    """

    project: int
    model_version: str | None
    spare: tuple[int, ...] = ()
    submitted: list[Submitted] = field(default_factory=list)

    @property
    def corrections(self) -> int:
        """How many predictions were corrected."""
        return sum(not one.accepted for one in self.submitted)

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        return {
            "annotated": len(self.submitted),
            "corrections": self.corrections,
            "accepted": len(self.submitted) - self.corrections,
            "mean_iou_shown": sum(one.iou for one in self.submitted) / len(self.submitted),
        }


def correct(plan: Plan, arm: Arm, running: Servers, say: Callable[[str], None]) -> Corrected:
    """Make the project, join it by `segzero connect`, and correct until the count is reached.

    Tasks come in portions, so that no more are made than it takes.

    Raises:
        ProcessError: It could not be joined, or the model needs no corrections.
        LabelStudioError: Label Studio refuses something.
    """
    client = running.client
    project = client.create_project(f"Benchmark {arm.name}", labelling_config()).id
    _connect(running, project)
    version = running.client.project(project).model_version
    done = Corrected(project, version)
    brush = brush_of(labelling_config())
    scenes = _scenes(plan, arm)
    done.spare = tuple(import_samples(client, project, scenes[:_SPARE]))
    retrieve_all(client, project, done.spare, version)
    for start in range(_SPARE, len(scenes), _AT_ONCE):
        samples = scenes[start : start + _AT_ONCE]
        _portion(plan, arm, running, done, samples, brush)
        say(f"{len(done.submitted)} annotated, {done.corrections} of them corrected")
        if done.corrections >= plan.corrections:
            return done
    raise ProcessError(f"Of {len(scenes)} predictions only {done.corrections} were wrong.")


def _portion(
    plan: Plan,
    arm: Arm,
    running: Servers,
    done: Corrected,
    samples: Sequence[Sample],
    brush: Brush,
) -> None:
    tasks = import_samples(running.client, done.project, samples)
    retrieve_all(running.client, done.project, tasks, done.model_version, once=True)
    truths = {number: truth_of(sample) for number, sample in zip(tasks, samples, strict=True)}
    if arm.is_shuffled:
        truths = shuffled(truths, np.random.default_rng([arm.seed, tasks[0]]))
    known = [one for one in running.client.tasks(done.project) if one.id in truths]
    done.submitted += annotate(
        running.client,
        known,
        truths,
        brush,
        done.model_version,
        plan.corrections - done.corrections,
    )


def truth_of(sample: Sample) -> Truth:
    """What is true of a scene."""
    picture = sample.image()
    return Truth(ImageSize(picture.width, picture.height), sample.masks)


def shuffled(truths: Mapping[int, Truth], rng: np.random.Generator) -> dict[int, Truth]:
    """Give every picture the masks of another one, stretched to its size.

    Args:
        truths: By task; at least two.
        rng: Decides which.
    """
    order = [int(number) for number in rng.permutation(list(truths))]
    others = [*order[1:], order[0]]
    return {
        number: Truth(size, tuple(stretched(mask, size) for mask in truths[other].masks))
        for number, other in zip(order, others, strict=True)
        for size in [truths[number].size]
    }


def stretched(mask: BoolMask, size: ImageSize) -> BoolMask:
    """A mask at another size; bool (size.height, size.width)."""
    picture = Image.fromarray(mask).resize((size.width, size.height), Image.Resampling.NEAREST)
    return np.asarray(picture, dtype=np.bool_)


def _scenes(plan: Plan, arm: Arm) -> Sequence[Sample]:
    shifted = scene_samples(_MOST_TASKS, PROJECT_SEED + arm.seed, "shifted")
    if not plan.plain_tasks:
        return shifted
    plain = scene_samples(_MOST_TASKS, PROJECT_PLAIN_SEED + arm.seed)
    return _Mixed(shifted, plain, plan.plain_tasks)


class _Mixed(Sequence[Sample]):
    """Shifted scenes with so many plain ones for every hundred of them, evenly spread."""

    def __init__(self, shifted: Sequence[Sample], plain: Sequence[Sample], share: int) -> None:
        marks = [(100 * at, shifted, at) for at in range(len(shifted))]
        marks += [(100 * 100 * at // share, plain, at) for at in range(len(plain))]
        marks.sort(key=lambda one: one[0])
        self._order = [(source, at) for _, source, at in marks][:_MOST_TASKS]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [source[at] for source, at in self._order[index]]
        source, at = self._order[index]
        return source[at]


def _connect(running: Servers, project: int) -> None:
    command = [sys.executable, "-P", "-m", "backend.cli", "connect"]
    command += ["--project", str(project), "--backend-url", running.access.url]
    env = local_env(os.environ, lambda name: name.startswith("SEGZERO_")) | running.environment
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if told.returncode != 0:
        raise ProcessError(f"segzero connect failed: {told.stderr.strip()}")
