"""Hosted by `label-studio-ml` 1.0.9, in an environment of its own, for a real Label Studio."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from backend.demo.install import _index
from backend.demo.processes import LOOPBACK, Child, free_port, local_env
from backend.demo.tasks import import_samples
from backend.label_studio import LabelStudio
from backend.templates import labelling_config
from segzero_ml.datasets.scenes import scene_samples
from tests.e2e.world import Backend, Studio

pytestmark = pytest.mark.e2e

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".cache" / "label-studio-ml"
OVERRIDES: Final = ROOT / "docker" / "label-studio-ml.overrides.txt"
WANTED: Final = "label-studio-ml==1.0.9"
START_S: Final = 600.0
SCENES: Final = 4


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter that has label-studio-ml, and this interpreter's packages behind it."""
    python = FOLDER / "bin" / "python"
    stamp = FOLDER / "installed.txt"
    expected = f"{WANTED}\n{sys.version}\n{OVERRIDES.read_text()}"
    if stamp.is_file() and stamp.read_text() == expected:
        return python
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.fail("uv is needed to override the pins of label-studio-ml: pip install uv")
    env = {**os.environ, **_index(os.environ)}
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER)],
        [*install, "--override", str(OVERRIDES), WANTED],
    ):
        subprocess.run(command, env=env, check=True, timeout=START_S)
    [packages] = FOLDER.glob("lib/python*/site-packages")
    # torch and all the rest, without installing them a second time.
    (packages / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    stamp.write_text(expected)
    return python


@pytest.fixture(scope="module")
def host(python: Path, studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `python -m backend.model`."""
    folder = tmp_path_factory.mktemp("hosted")
    port = free_port()
    env = local_env(os.environ, lambda name: name.startswith("SEGZERO_")) | {
        "PYTHONPATH": str(ROOT),
        "SEGZERO_DATA_DIR": str(folder / "data"),
        "SEGZERO_LABEL_STUDIO_URL": studio.url,
        "SEGZERO_LABEL_STUDIO_TOKEN": studio.login.token,
    }
    command = [str(python), "-m", "backend.model", "--host", LOOPBACK, "--port", str(port)]
    url = f"http://{LOOPBACK}:{port}"
    with Child("label-studio-ml", command, env, folder / "log") as child:
        child.wait_until(f"{url}/health", START_S)
        yield url


def told(prediction: dict[str, Any]) -> list[dict[str, Any]]:
    """What a prediction says, without the ids that are new every time, and the scores."""
    return [
        {name: value for name, value in one.items() if name not in {"id", "parentID", "score"}}
        for one in prediction["result"]
    ]


def scores(prediction: dict[str, Any]) -> list[float]:
    """Of the regions; their last digits hang on which tasks were answered in one batch."""
    return [one["score"] for one in prediction["result"] if "score" in one]


def test_label_studio_gets_the_same_predictions_as_from_the_server(
    host: str, client: LabelStudio, backend: Backend
) -> None:
    project = client.create_project("Hosted by label-studio-ml", labelling_config())
    ids = import_samples(client, project.id, list(scene_samples(SCENES, seed=51)))
    client.add_ml_backend({"url": host, "title": "hosted", "project": project.id})
    client.retrieve_predictions(project.id, ids)
    tasks = client.tasks(project.id)
    login = backend.environment
    served = httpx.post(
        f"{backend.access.url}/predict",
        auth=(login["SEGZERO_USER"], login["SEGZERO_PASSWORD"]),
        timeout=120,
        json={
            "tasks": [{"id": task.id, "data": task.data} for task in tasks],
            "project": f"{project.id}.0",
            "label_config": labelling_config(),
            "params": {"for_worker": True},
        },
    ).json()
    assert [len(task.predictions) for task in tasks] == [1] * SCENES
    assert any(scores(expected) for expected in served["results"])
    for task, expected in zip(tasks, served["results"], strict=True):
        [found] = task.predictions
        assert found.model_version == served["model_version"]
        assert found.score == pytest.approx(expected["score"], abs=1e-3)
        assert told(found.model_dump()) == told(expected)
        assert scores(found.model_dump()) == pytest.approx(scores(expected), abs=1e-3)
    # The version is told as it is, so nothing is asked for again.
    client.retrieve_predictions(project.id, ids)
    assert [len(task.predictions) for task in client.tasks(project.id)] == [1] * SCENES


def test_two_projects_share_it_and_each_is_answered_for_its_own_config(
    host: str, client: LabelStudio
) -> None:
    """1.0.9 keeps one object, with the config of the project that was set up last."""
    image = next(iter(scene_samples(1, seed=52)))
    projects = []
    for label in ("Defect", "Scratch"):
        config = labelling_config([label])
        project = client.create_project(label, config)
        [task] = import_samples(client, project.id, [image])
        setup = httpx.post(
            f"{host}/setup", json={"project": f"{project.id}.0", "schema": config}, timeout=60
        )
        assert setup.json()["model_version"].startswith("tiny")
        projects.append((label, config, project.id, task))
    for label, config, project_id, task in projects:
        [full] = [one for one in client.tasks(project_id) if one.id == task]
        body = {
            "tasks": [{"id": task, "data": full.data, "project": project_id}],
            "project": f"{project_id}.0",
            "label_config": config,
            "params": {"login": None, "password": None, "context": None},
        }
        reply = httpx.post(f"{host}/predict", json=body, timeout=120).json()
        labels = {
            name
            for region in reply["results"][0]["result"]
            for name in region["value"].get("brushlabels", ())
        }
        assert labels == {label}


def test_a_config_that_cannot_be_served_is_refused_at_set_up(host: str) -> None:
    config = "<View><Text name='a' value='$b'/></View>"
    reply = httpx.post(f"{host}/setup", json={"project": "1.0", "schema": config}, timeout=60)
    assert reply.status_code == 500
    assert "LabellingConfigError" in reply.text
