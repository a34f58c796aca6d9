"""A real Label Studio, a real backend with the bundled models, and a project of scenes.

Label Studio is taken from SEGZERO_TEST_LABEL_STUDIO (the `label-studio` program), else from
`.cache/label-studio` or the demo's folder, else installed into `.cache/label-studio`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from selenium.webdriver import Chrome

from backend.connect import BackendAccess, ConnectReport, connect
from backend.demo.install import install, installed
from backend.demo.processes import Child, free_port, local_env
from backend.demo.servers import (
    LABEL_STUDIO_START_S,
    BackendLogin,
    Login,
    start_backend,
    start_label_studio,
    wait_for_model,
)
from backend.demo.tasks import import_samples, retrieve_all
from backend.label_studio import LabelStudio
from backend.label_studio_models import Task
from backend.templates import labelling_config
from segzero_ml.datasets.scenes import scene_samples
from tests.e2e.browsing import chromium
from tests.e2e.world import Backend, Prepared, Studio

ROOT = Path(__file__).parent.parent.parent
SCENES = 20
SEED = 41

StartStudio = Callable[..., Studio]
StartBackend = Callable[..., Backend]


@pytest.fixture(scope="session", autouse=True)
def _servers_of_this_machine_only() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SEGZERO_")]:
            if not name.startswith("SEGZERO_TEST_"):
                patch.delenv(name)
        for name, value in local_env(os.environ).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def program() -> Path:
    """The `label-studio` program."""
    given = os.environ.get("SEGZERO_TEST_LABEL_STUDIO")
    if given:
        return Path(given)
    cache = ROOT / ".cache" / "label-studio"
    found = installed(cache) or installed(ROOT / ".demo" / "label-studio")
    return found or install(cache, ROOT / ".cache" / "label-studio-install.log")


@pytest.fixture(scope="session")
def start_studio(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartStudio]:
    """Starts Label Studio, on the data of another one if given."""
    children: list[Child] = []

    def start(share: Studio | None = None, allow_local_backends: bool = True) -> Studio:
        folder = tmp_path_factory.mktemp("studio")
        port = free_port()
        login = Login.generate() if share is None else share.login
        data = folder / "data" if share is None else share.data
        child = start_label_studio(
            program,
            data,
            port,
            login,
            folder / "log",
            allow_local_backends=allow_local_backends,
        )
        children.append(child)
        url = f"http://127.0.0.1:{port}"
        child.wait_until(f"{url}/health", LABEL_STUDIO_START_S)
        return Studio(url, login, data)

    yield start
    for child in children:
        child.stop()


@pytest.fixture(scope="session")
def studio(start_studio: StartStudio) -> Studio:
    """Label Studio, able to call backends of this machine."""
    return start_studio()


@pytest.fixture(scope="session")
def client(studio: Studio) -> Iterator[LabelStudio]:
    """Label Studio's API with its user's legacy token."""
    with LabelStudio(studio.url, studio.login.token) as opened:
        yield opened


@pytest.fixture(scope="session")
def start_backend_with(
    studio: Studio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartBackend]:
    """Starts `segzero up` that reads pictures with the given token."""
    children: list[Child] = []

    def start(token: str) -> Backend:
        port, login = free_port(), BackendLogin.generate()
        folder = tmp_path_factory.mktemp("backend")
        data = folder / "data"
        child = start_backend(port, studio.url, token, login, folder / "log", data=data)
        children.append(child)
        url = f"http://127.0.0.1:{port}"
        wait_for_model(child, url)
        access = BackendAccess(
            url, login.user, SecretStr(login.password), SecretStr(login.webhook_secret)
        )
        return Backend(child, access, data)

    yield start
    for child in children:
        child.stop()


@pytest.fixture(scope="session")
def backend(studio: Studio, start_backend_with: StartBackend) -> Backend:
    """The backend, with the bundled models and the user's legacy token."""
    return start_backend_with(studio.login.token)


@pytest.fixture(scope="session")
def prepared(client: LabelStudio, backend: Backend) -> Prepared:
    """Twenty scenes that no training saw, connected, with the predictions retrieved."""
    samples = list(scene_samples(SCENES, SEED))
    project = client.create_project("Twenty scenes", labelling_config())
    task_ids = import_samples(client, project.id, samples)
    report: ConnectReport = connect(client, project.id, backend.access)
    retrieve_all(client, project.id, task_ids, report.model_version)
    tasks: list[Task] = client.tasks(project.id)
    return Prepared(project.id, tuple(samples), tuple(tasks), report)


@pytest.fixture(scope="session")
def browser(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Chromium, signed in to Label Studio."""
    with chromium(studio, tmp_path_factory.mktemp("profile")) as driver:
        yield driver
