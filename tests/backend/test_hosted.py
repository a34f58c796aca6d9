"""The predictor in another host's process, also where that forks its workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_FORKING = """
import os
import backend.hosted as hosted
from backend.app import create_app
from backend.templates import labelling_config

class Loaded:
    model_version = "loaded@1"

    def predict(self, images, requests, *, batch_size):
        raise AssertionError

hosted.create_app = lambda settings: create_app(settings, load_pipeline=Loaded)

def version():
    body = {"tasks": [], "project": "1.1", "label_config": labelling_config()}
    return hosted.shared().predict(body).model_version

assert version() == "loaded@1"
child = os.fork()
if child == 0:
    os._exit(0 if version() == "loaded@1" else 1)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert version() == "loaded@1"
"""


def test_a_worker_that_is_forked_after_the_start_answers_too(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "SEGZERO_PREDICT_DEADLINE_S": "5"}
    done = subprocess.run(
        [sys.executable, "-c", _FORKING],
        env=env,
        cwd=tmp_path,
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
