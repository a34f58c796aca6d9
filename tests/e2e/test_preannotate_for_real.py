"""`segzero preannotate` against a real Label Studio and `segzero up`, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from backend.demo.tasks import import_samples
from backend.label_studio import LabelStudio
from backend.label_studio_models import Task
from backend.templates import labelling_config
from segzero_ml.datasets.scenes import scene_samples
from tests.e2e.world import Backend, Studio

pytestmark = pytest.mark.e2e

TASKS: Final = 40
SEED: Final = 47
PATIENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Told:
    """What a command ended with."""

    code: int
    out: dict[str, Any]
    err: str


@dataclass(frozen=True, slots=True)
class Operator:
    """Runs commands beside `segzero up`."""

    backend: Backend
    studio: Studio

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if name[:8] != "SEGZERO_"}
        env |= self.backend.environment | {
            "SEGZERO_PORT": self.backend.access.url.rpartition(":")[2],
            "SEGZERO_DATA_DIR": str(self.backend.data),
            "SEGZERO_LABEL_STUDIO_URL": self.studio.url,
            "SEGZERO_LABEL_STUDIO_TOKEN": self.studio.login.token,
        }
        command = [sys.executable, "-m", "backend.cli", *arguments]
        return subprocess.Popen(
            command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments: str) -> Told:
        process = self.start(*arguments, "--json")
        out, err = process.communicate(timeout=PATIENCE_S)
        assert out, err
        return Told(process.returncode, json.loads(out), err)


@pytest.fixture(scope="module")
def operator(backend: Backend, studio: Studio) -> Operator:
    return Operator(backend, studio)


@pytest.fixture(scope="module")
def project(client: LabelStudio, backend: Backend) -> Iterator[int]:
    """Forty scenes, and one task whose picture is not there."""
    project = client.create_project("In bulk", labelling_config())
    import_samples(client, project.id, list(scene_samples(TASKS, SEED)))
    client.import_tasks(
        project.id, [{"image": "/data/upload/1/none.png", "request": "the red star"}]
    )
    yield project.id


def versions(tasks: list[Task]) -> list[list[str | None]]:
    return [[one.model_version for one in task.predictions] for task in tasks]


def test_a_dry_run_only_says(operator: Operator, client: LabelStudio, project: int) -> None:
    told = operator.run("preannotate", "--project", str(project), "--dry-run")
    assert told.code == 0
    assert len(told.out["tasks"]) == TASKS + 1
    assert not any(task.predictions for task in client.tasks(project))


def test_every_task_gets_one_prediction_although_the_command_was_killed(
    operator: Operator, client: LabelStudio, project: int
) -> None:
    killed = operator.start("preannotate", "--project", str(project), "--workers", "1")
    until = time.monotonic() + PATIENCE_S
    while not any(task.predictions for task in client.tasks(project)):
        assert time.monotonic() < until
        time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    told = operator.run("preannotate", "--project", str(project))
    *good, bad = client.tasks(project)
    version = told.out["version"]
    assert [found for found in versions(good) if found != [version]] == []
    assert bad.predictions == []
    assert told.code == 3
    assert list(told.out["failed"]) == [str(bad.id)]
    assert "none.png answered" in told.out["failed"][str(bad.id)]
    assert sum(any(one.result for one in task.predictions) for task in good) > TASKS / 2


def test_again_there_is_only_the_failed_one_to_do(
    operator: Operator, client: LabelStudio, project: int
) -> None:
    before = client.tasks(project)
    told = operator.run("preannotate", "--project", str(project))
    assert (told.out["done"], len(told.out["failed"])) == (0, 1)
    assert client.tasks(project) == before


def test_refresh_predicts_what_an_older_version_did_and_leaves_annotations(
    operator: Operator, client: LabelStudio, project: int
) -> None:
    first, second, *_ = client.tasks(project)
    old = client.import_tasks(project, [first.data, second.data])
    for task_id in old:
        client.add_prediction(task_id, first.predictions[0].result, "tiny@00000000", 0.5)
    client.annotate(old[0], first.predictions[0].result)
    before = {task.id: task for task in client.tasks(project)}
    told = operator.run("refresh", "--project", str(project))
    assert (told.code, told.out["done"]) == (0, 2)
    after = {task.id: task for task in client.tasks(project)}
    for task_id in old:
        found = Counter(one.model_version for one in after[task_id].predictions)
        assert found == {"tiny@00000000": 1, told.out["version"]: 1}
        assert after[task_id].annotations == before[task_id].annotations
    assert all(after[number] == before[number] for number in before if number not in old)


def test_a_filter_and_a_limit_choose_tasks(operator: Operator, project: int) -> None:
    told = operator.run("preannotate", "--project", str(project), "--filter", "request=*star")
    assert told.out["failed"]
    told = operator.run(
        "preannotate", "--project", str(project), "--filter", "request=*nothing like it*"
    )
    assert told.out["tasks"] == []
