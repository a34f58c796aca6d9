"""What the tests of the backend share: the real bundled pair behind a real server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from backend.app import create_app
from backend.model_thread import Predicts
from backend.serve import Server
from backend.settings import load_settings
from segzero_ml.pipeline import Pipeline
from segzero_ml.tiny.scenes import Scene, make_scene
from tests.backend.serving import STUDIO, Running, Serve, StudioFiles


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SEGZERO_"):
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _data_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the working directory."""
    monkeypatch.setenv("SEGZERO_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(scope="session")
def tiny_pipeline() -> Pipeline:
    """The bundled reasoner and segmenter, loaded once."""
    return Pipeline.load("tiny")


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    """Eight tabletop scenes."""
    rng = np.random.default_rng(2024)
    return [make_scene(rng) for _ in range(8)]


@pytest.fixture(scope="session")
def files(scenes: list[Scene]) -> StudioFiles:
    """The Label Studio that hands out the scenes."""
    return StudioFiles(scenes)


@pytest.fixture(scope="session")
def serve(
    tiny_pipeline: Pipeline, files: StudioFiles, tmp_path_factory: pytest.TempPathFactory
) -> Serve:
    """How to run a backend on a port of its own, for the time of a `with`."""

    @contextmanager
    def serving(
        load: Callable[[], Predicts] = lambda: tiny_pipeline, **given: Any
    ) -> Iterator[Running]:
        data_dir = given.pop("data_dir", None) or tmp_path_factory.mktemp("data")
        transport = given.pop("transport", httpx.MockTransport(files))  # None: the network
        defaults = {"port": 0, "label_studio_url": STUDIO, "drain_s": 5, "data_dir": data_dir}
        settings = load_settings(**{**defaults, **given})
        app = create_app(settings, load_pipeline=load, transport=transport)
        server = Server(app, settings)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                yield Running(server, app, client)
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()

    return serving


@pytest.fixture(scope="session")
def running(serve: Serve) -> Iterator[Running]:
    """A backend with the default settings, for tests that leave it as it is."""
    with serve() as backend:
        backend.wait_until_ready()
        yield backend
