"""The demo's second project: evening scenes that the bundled model gets wrong, to be corrected.

They are of the *shifted* style: dark backgrounds and outlines, which the model was not trained
on. Correcting them until their number starts a round of training makes it better at them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from backend.demo.tasks import import_samples, newest_prediction, retrieve_all, scene_of
from backend.label_studio import LabelStudio
from backend.label_studio_models import Task
from backend.templates import labelling_config
from segzero_ml.datasets import Sample

CORRECTIONS: Final = 80
"""New corrections that start a round: about 50 teach, the others judge what was learnt."""

SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "SEGZERO_TRAIN_EVERY_CORRECTIONS": str(CORRECTIONS),
        # Whether so few corrections taught anything can only be told on many images.
        "SEGZERO_TRAIN_HELD_OUT_SHARE": "0.4",
        # So few have to be shown more often than usual.
        "SEGZERO_TRAIN_COLD_START": "6",
        # Most is learnt at a round's beginning: a few minutes on one core.
        "SEGZERO_TRAIN_MAX_STEPS": "4",
        "SEGZERO_TRAIN_SAVE_EVERY": "4",
        "SEGZERO_TRAIN_REHEARSAL_HELD_OUT": "100",
        "SEGZERO_TRAIN_DEBOUNCE_S": "30",
    }
)
"""What the demo's `segzero up` is started with, so that a round is short."""

TASKS: Final = 150
SHOWN: Final = 20
"""Tasks whose predictions are fetched at once; those of the others when they are needed."""

_SEED: Final = 2027
_STYLE: Final = "shifted"
_TITLE: Final = "Evening scenes (SegZero demo: correct these)"
_DESCRIPTION: Final = (
    "The model was never shown such pictures. Correct its masks; their number starts a training."
)


def make_project(client: LabelStudio) -> int:
    """Make the project, without tasks; returns its id.

    Raises:
        LabelStudioError: Label Studio refuses it.
    """
    return client.create_project(_TITLE, labelling_config(), description=_DESCRIPTION).id


def fill(client: LabelStudio, project: int, say: Callable[[str], None]) -> None:
    """Give the project its tasks, unless it has some.

    Raises:
        LabelStudioError: Label Studio refuses something.
    """
    from segzero_ml.datasets.scenes import scene_samples

    if client.tasks(project):
        return
    say("drawing")
    samples = list(scene_samples(TASKS, _SEED, _STYLE))
    say("uploading")
    import_samples(client, project, samples)


def predict_some(
    client: LabelStudio,
    project: int,
    tasks: Sequence[Task],
    model_version: str | None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Have Label Studio retrieve the predictions of those tasks that lack one of this version.

    Where the model finds no answer, as it often does on such pictures, there is none afterwards.
    """
    missing = [task.id for task in tasks if newest_prediction(task, model_version) is None]
    if missing:

        def progress(done: int) -> None:
            say(f"{done} of {len(missing)} tasks")

        retrieve_all(client, project, missing, model_version, progress, once=True)


def sample_of(task: Task) -> Sample | None:
    """The scene that a task was made of, drawn again; None for a task from elsewhere."""
    from segzero_ml.datasets.scenes import scene_sample

    style, _, number = scene_of(task).partition("-")
    if not number.isascii() or not number.isdigit():
        return None
    if style == "shifted":
        return scene_sample(int(number), "shifted")
    return scene_sample(int(number), "plain") if style == "plain" else None
