"""The demo's pictures, what it reads back, and what it keeps between runs."""

from __future__ import annotations

import io
import json
import socket
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from rich.console import Console

from backend.demo.processes import ProcessError
from backend.demo.show import Steps, summary_of, table_of, what_next
from backend.demo.state import Folder, fresh_state, kept_state
from backend.demo.tasks import Outcome, outcome, retrieve_all
from backend.label_studio import LabelStudio
from backend.label_studio_models import Task
from backend.labelling import parse_config
from backend.templates import labelling_config
from backend.translate import Labelled, to_task_result
from segzero_ml import masks
from segzero_ml.datasets import Sample
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.types import BoolMask, Box, ImageSize, Prediction, Segment


@pytest.fixture(scope="module")
def sample() -> Sample:
    return next(sample for sample in scene_samples(7, 8) if len(sample.masks) == 1)


def task_with(sample: Sample, *predicted: Sequence[BoolMask]) -> Task:
    """A task with one prediction for each sequence of masks, oldest first."""
    height, width = sample.masks[0].shape
    stored = []
    for number, one in enumerate(predicted, start=1):
        segments = tuple(
            Segment(Box(0, 0, width, height), (), masks.encode(mask), 0.5) for mask in one
        )
        answer = Prediction(
            sample.request, ImageSize(width, height), f"Reason {number}.", segments, 0.25, "v1"
        )
        result = to_task_result([Labelled(answer, "Object")], parse_config(labelling_config()))
        stored.append({"id": number, **result})
    data = {"scene": sample.sample_id}
    return Task.model_validate({"id": 5, "data": data, "predictions": stored})


def test_a_perfect_prediction_has_an_iou_of_one(sample: Sample) -> None:
    found = outcome(task_with(sample, sample.masks), sample, "v1")
    assert found == Outcome(5, sample.request, "Reason 1.", 0.25, 1.0, has_target=True)


def test_the_newest_prediction_counts(sample: Sample) -> None:
    nothing = np.zeros_like(sample.masks[0])
    assert outcome(task_with(sample, sample.masks, [nothing]), sample, "v1").iou == 0.0


def test_nothing_found_where_nothing_is_counts_fully(sample: Sample) -> None:
    absent = replace(sample, masks=())
    found = outcome(task_with(sample, []), absent, "v1")
    assert (found.iou, found.has_target) == (1.0, False)


def test_a_task_without_a_prediction_has_no_iou(sample: Sample) -> None:
    found = outcome(task_with(sample), sample, "v1")
    assert (found.iou, found.score, found.note) == (None, None, "")


def test_a_prediction_of_an_older_version_is_none(sample: Sample) -> None:
    assert outcome(task_with(sample, sample.masks), sample, "v2").iou is None


STORED = {"id": 1, "result": [], "model_version": "v1"}


class SlowStudio:
    """Stores predictions for at most one task a call, and never for some."""

    def __init__(self, never: int) -> None:
        self.never = never
        self.have: set[int] = set()
        self.calls: list[list[int]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/dm/actions/":
            asked: list[int] = json.loads(request.content)["selectedItems"]["included"]
            self.calls.append(asked)
            self.have |= {asked[0]} - {self.never}
            return httpx.Response(200, json={})
        tasks: list[dict[str, Any]] = [
            {"id": i, "data": {}, "predictions": [STORED] * (i in self.have)} for i in range(1, 7)
        ]
        return httpx.Response(200, json={"total": 6, "tasks": tasks})


@pytest.mark.parametrize("never", [0, 3])
def test_tasks_that_were_not_ready_in_time_are_asked_for_again(never: int) -> None:
    studio = SlowStudio(never)
    client = LabelStudio("http://a.b", "token", transport=httpx.MockTransport(studio))
    progress: list[int] = []
    retrieve_all(client, 7, range(1, 7), "v1", progress.append)
    assert studio.have == {1, 2, 3, 4, 5, 6} - {never}
    assert progress[-1] == 6
    assert len(studio.calls) < 10


def test_table_and_summary_show_every_task() -> None:
    rows = [
        Outcome(1, "the [red] star", "It is red.", 0.5, 0.9, has_target=True),
        Outcome(2, "the ring", "None.", 0.9, 0.5, has_target=False),
        Outcome(3, "the cross", "", None, None, has_target=True),
    ]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table_of(rows))
    text = console.export_text()
    assert "the [red] star" in text
    assert "true: nothing there" in text
    assert "no prediction" in text
    assert summary_of(rows).startswith("2 of 3 tasks have their prediction; mean IoU")
    assert "0.70" in summary_of(rows)


def test_steps_are_numbered_and_timed() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    steps = Steps(console, 2)
    with steps.step("Installing") as say:
        say("half")
    assert "✓ [1/2] Installing  0 s" in console.export_text()


def test_a_step_that_fails_is_not_ticked_off() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    with pytest.raises(ProcessError), Steps(console, 2).step("Installing"):
        raise ProcessError("no network")
    assert "✓" not in console.export_text()


def test_a_finished_demo_can_be_gone_on_with(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    state = replace(fresh_state(folder, None), project_id=3)
    state.save(folder)
    folder.data.mkdir()
    assert kept_state(folder) == state
    assert stat.S_IMODE(folder.state.stat().st_mode) == 0o600


def test_what_to_do_next_names_address_and_login(tmp_path: Path) -> None:
    state = replace(fresh_state(Folder(tmp_path), None), project_id=3)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(what_next(state))
    text = console.export_text()
    assert f"{state.label_studio_url}/projects/3" in text
    assert state.user.password in text


def test_a_new_demo_removes_the_old_data_and_takes_new_secrets(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (folder.data / "old").mkdir(parents=True)
    first, second = fresh_state(folder, None), fresh_state(folder, None)
    assert not folder.data.exists()
    assert first.user.password != second.user.password
    assert first.backend.webhook_secret != second.backend.webhook_secret


def test_a_taken_port_is_named_with_a_remedy(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ProcessError, match=f"Port {port}") as caught:
            fresh_state(Folder(tmp_path), port)
        state = fresh_state(Folder(tmp_path), None)
        replace(state, label_studio_port=port, project_id=1).save(Folder(tmp_path))
        Folder(tmp_path).data.mkdir()
        with pytest.raises(ProcessError, match=f"Port {port}"):
            kept_state(Folder(tmp_path))
    assert "Stop that program" in caught.value.remedy


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with (
        folder.locked(),
        pytest.raises(ProcessError, match="already running"),
        Folder(tmp_path).locked(),
    ):
        pass
    with folder.locked():
        pass
