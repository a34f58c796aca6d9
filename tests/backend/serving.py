"""Helpers of the tests that run the backend: no fixtures, no tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import httpx
from fastapi import FastAPI
from PIL import Image

from backend.model_thread import Predicts
from backend.serve import Server
from backend.templates import labelling_config
from segzero_ml.pipeline import Pipeline
from segzero_ml.segmenter import MaskResult, Prompt
from segzero_ml.tiny.scenes import Scene
from segzero_ml.types import Prediction

STUDIO = "http://ls:8080"
CONFIG = labelling_config()


class Watched:
    """The real pipeline, with something that happens before it answers: a wait, a failure.

    Args:
        pipeline: Answers.
        before: Called with the requests of each batch; may sleep or raise.
    """

    def __init__(
        self, pipeline: Pipeline, before: Callable[[Sequence[str]], object] = lambda _: None
    ) -> None:
        self._pipeline = pipeline
        self._before = before
        self.batches: list[list[str]] = []

    @property
    def model_version(self) -> str:
        return self._pipeline.model_version

    def predict(
        self, images: Sequence[Image.Image], requests: Sequence[str], *, batch_size: int = 8
    ) -> list[Prediction]:
        self.batches.append(list(requests))
        self._before(requests)
        return self._pipeline.predict(images, requests, batch_size=batch_size)

    def cut(self, image: Image.Image, prompts: Sequence[Prompt]) -> list[MaskResult]:
        return self._pipeline.cut(image, prompts)


class StudioFiles:
    """The network seam: a Label Studio that hands out files, and nothing else anywhere.

    Args:
        scenes: Scene n is `/data/upload/<n>.jpg`; more can be put into `files`.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.files = {f"/data/upload/{n}.jpg": scene.jpeg for n, scene in enumerate(scenes)}
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host != "ls":
            raise httpx.ConnectError("nothing there", request=request)
        found = self.files.get(request.url.path)
        return httpx.Response(404) if found is None else httpx.Response(200, content=found)


class Running:
    """A backend that runs.

    Args:
        server: The server itself.
        app: What it serves.
        client: Calls it.
    """

    def __init__(self, server: Server, app: FastAPI, client: httpx.Client) -> None:
        self.server = server
        self.app = app
        self.client = client

    def post(self, path: str, body: object, **more: Any) -> httpx.Response:
        return self.client.post(path, json=body, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(path, **more)

    def predict(self, *tasks: Any, config: str = CONFIG, typed: object = None) -> list[Any]:
        """Results of a call to /predict; `typed` makes it an interactive one."""
        reply = self.post("/predict", predict_body(*tasks, config=config, typed=typed))
        assert reply.status_code == 200, reply.text
        results: list[Any] = reply.json()["results"]
        assert len(results) == len(tasks)
        return results

    def wait_until_ready(self) -> None:
        until = time.monotonic() + 60
        while self.get("/ready").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.02)


class Serve(Protocol):
    """What the fixture `serve` is: `with serve(load=..., **settings) as running`."""

    def __call__(
        self, load: Callable[[], Predicts] = ..., **settings: Any
    ) -> AbstractContextManager[Running]: ...


def task(number: int, **data: Any) -> dict[str, Any]:
    """A task whose image is scene `number`."""
    return {"id": number + 1, "data": {"image": f"/data/upload/{number}.jpg", **data}}


def predict_body(*tasks: Any, config: str = CONFIG, typed: object = None) -> dict[str, Any]:
    """Body of a call as Label Studio sends it."""
    context = None
    if typed is not None:
        region = {"from_name": "request", "type": "textarea", "value": {"text": typed}}
        context = {"result": [region]}
    return {
        "tasks": list(tasks),
        "project": "1.1700000000",
        "label_config": config,
        "params": {"login": None, "password": None, "context": context},
    }


def naming(scene: Scene, index: int = 0) -> str:
    """A request that means one object of a scene by its attributes."""
    found = scene.objects[index]
    return f"the {found.colour} {found.shape}"
