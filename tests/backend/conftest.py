"""What the tests of the backend share: the real bundled pair behind a real server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from backend.addresses import Resolver, resolve
from backend.app import create_app
from backend.model_thread import Predicts
from backend.serve import Server
from backend.settings import load_settings
from segzero_ml.pipeline import Pipeline
from segzero_ml.tiny.scenes import Scene, make_scene
from segzero_ml.types import Prediction

STUDIO = "http://ls:8080"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SEGZERO_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def tiny_pipeline() -> Pipeline:
    """The bundled reasoner and segmenter, loaded once."""
    return Pipeline.load("tiny")


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    """Eight tabletop scenes."""
    rng = np.random.default_rng(2024)
    return [make_scene(rng) for _ in range(8)]


class Watched:
    """The real pipeline, with something that happens before it answers: a wait, a failure.

    Args:
        pipeline: Answers.
        before: Called with the requests of each batch; may sleep or raise.
    """

    def __init__(
        self, pipeline: Pipeline, before: Callable[[Sequence[str]], None] = lambda _: None
    ) -> None:
        self._pipeline = pipeline
        self._before = before
        self.batches: list[list[str]] = []

    @property
    def model_version(self) -> str:
        return self._pipeline.model_version

    def predict(
        self, images: Sequence[Image.Image], requests: Sequence[str]
    ) -> list[Prediction]:
        self.batches.append(list(requests))
        self._before(requests)
        return self._pipeline.predict(images, requests)


@pytest.fixture
def watched(
    tiny_pipeline: Pipeline,
) -> Callable[[Callable[[Sequence[str]], None]], Watched]:
    """Wraps the real pipeline: `watched(before)`."""
    return lambda before: Watched(tiny_pipeline, before)


class StudioFiles:
    """The network seam: a Label Studio that only hands out files, and the scenes' requests."""

    def __init__(self, scenes: list[Scene]) -> None:
        self.files: dict[str, bytes] = {
            f"/data/upload/{number}.jpg": scene.jpeg for number, scene in enumerate(scenes)
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "ls":
            raise httpx.ConnectError("nothing there", request=request)
        found = self.files.get(request.url.path)
        return httpx.Response(404) if found is None else httpx.Response(200, content=found)


@pytest.fixture
def files(scenes: list[Scene]) -> StudioFiles:
    """Files of Label Studio: `/data/upload/<n>.jpg` is scene n; add more to `.files`."""
    return StudioFiles(scenes)


Serve = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def serve(tiny_pipeline: Pipeline, files: StudioFiles) -> Serve:
    """Runs the backend: `with serve(load=..., resolver=..., **settings) as client`.

    The client has the running `Server` as `client.server`.
    """

    @contextmanager
    def serving(
        load: Callable[[], Predicts] = lambda: tiny_pipeline,
        resolver: Resolver = resolve,
        **given: Any,
    ) -> Iterator[httpx.Client]:
        settings = load_settings(
            **{"port": 0, "label_studio_url": STUDIO, "drain_s": 5, **given}
        )
        app = create_app(
            settings,
            load_pipeline=load,
            transport=httpx.MockTransport(files),
            resolver=resolver,
        )
        server = Server(app, settings)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                client.server = server  # type: ignore[attr-defined]
                yield client
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()

    return serving


def naming(scene: Scene, index: int = 0) -> str:
    """A request that means one object of a scene by its attributes."""
    found = scene.objects[index]
    return f"the {found.colour} {found.shape}"
