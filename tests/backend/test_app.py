"""The endpoints as Label Studio uses them, over HTTP, with the bundled models."""

from __future__ import annotations

import struct
import threading
import time
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface.interface import LabelInterface as _LabelInterface

from backend.templates import labelling_config
from segzero_ml.errors import WeightsError
from segzero_ml.masks import iou
from segzero_ml.pipeline import Pipeline
from segzero_ml.tiny.scenes import Scene

from .conftest import Serve, StudioFiles, naming

LabelInterface: Any = _LabelInterface  # its methods are without types
CONFIG = labelling_config()


def task(number: int, **data: Any) -> dict[str, Any]:
    return {"id": number + 1, "data": {"image": f"/data/upload/{number}.jpg", **data}}


def ask(
    client: httpx.Client,
    *tasks: Any,
    config: str = CONFIG,
    context: dict[str, Any] | None = None,
) -> list[Any]:
    body = {
        "tasks": list(tasks),
        "project": "1.1700000000",
        "label_config": config,
        "params": {"login": None, "password": None, "context": context},
    }
    reply = client.post("/predict", json=body)
    assert reply.status_code == 200, reply.text
    results: list[Any] = reply.json()["results"]
    assert len(results) == len(tasks)
    return results


def wait_until_ready(client: httpx.Client) -> None:
    until = time.monotonic() + 20
    while client.get("/ready").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.02)
