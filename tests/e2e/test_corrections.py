"""Sixty annotations in a real Label Studio while everything that keeps them is killed once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from backend.annotations import identify
from backend.brush import decode_rle, encode_rle
from backend.connect import BackendAccess, connect
from backend.demo.processes import Child, free_port
from backend.demo.servers import BackendLogin, start_backend, wait_for_model
from backend.demo.tasks import import_samples, retrieve_all
from backend.label_studio import LabelStudio
from backend.label_studio_models import Task
from backend.redis_access import open_redis
from backend.settings import Settings
from backend.templates import labelling_config
from segzero_ml.corrections import Correction, Verdict
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.errors import ConfigError, StoreError
from tests.e2e.world import Studio
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ANNOTATIONS: Final = 60
TASKS: Final = 15
SEED: Final = 43
SETTLE_S: Final = 240.0
RECONCILE_S: Final = 20
NAME: Final = "label-studio"

KINDS: Final = ("accepted", "edited", "rejected", "nothing_here", "drawn_by_hand", "skipped")


class Annotator:
    """Annotates through Label Studio's API, and remembers what each annotation must come to.

    Args:
        studio: The Label Studio.
        tasks: What there is to annotate, with predictions.
    """

    def __init__(self, studio: Studio, tasks: list[Task], rng: random.Random) -> None:
        self.tasks = {task.id: task for task in tasks}
        self.verdicts: dict[int, str] = {}
        self.task_of: dict[int, int] = {}
        self._rng = rng
        headers = {"Authorization": f"Token {studio.login.token}"}
        self._http = httpx.Client(base_url=studio.url, headers=headers, timeout=60)

    def close(self) -> None:
        self._http.close()

    def create(self, kind: str) -> int:
        task = self._rng.choice(list(self.tasks.values()))
        reply = self._http.post(f"/api/tasks/{task.id}/annotations/", json=self._body(task, kind))
        made = int(reply.raise_for_status().json()["id"])
        self.verdicts[made], self.task_of[made] = kind, task.id
        return made

    def edit(self, annotation: int, kind: str) -> None:
        task = self.tasks[self.task_of[annotation]]
        body = self._body(task, kind)
        body.pop("parent_prediction")  # Label Studio keeps the one it was made with
        self._http.patch(f"/api/annotations/{annotation}/", json=body).raise_for_status()
        self.verdicts[annotation] = kind

    def delete(self, annotation: int) -> None:
        self._http.delete(f"/api/annotations/{annotation}/").raise_for_status()
        del self.verdicts[annotation]

    def delete_task(self, task: int) -> None:
        self._http.delete(f"/api/tasks/{task}/").raise_for_status()
        del self.tasks[task]
        for annotation in [one for one, of in self.task_of.items() if of == task]:
            self.verdicts.pop(annotation, None)

    def annotations(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """All annotations that Label Studio has, each with its task."""
        found = []
        for task in self.tasks:
            listed = self._http.get(f"/api/tasks/{task}/").raise_for_status().json()
            found += [(one, listed) for one in listed["annotations"]]
        return found

    def _body(self, task: Task, kind: str) -> dict[str, Any]:
        prediction = task.predictions[0]
        shown = [dict(one, origin="prediction") for one in prediction.result]
        others = [one for one in shown if one["type"] != "brushlabels"]
        regions = [one for one in shown if one["type"] == "brushlabels"]
        parent: int | None = prediction.id
        if kind == "edited":
            regions = [_moved(one) for one in regions]
        elif kind in ("rejected", "drawn_by_hand"):
            regions = [_drawn(regions[0])]
        elif kind == "nothing_here":
            regions = []
        if kind == "drawn_by_hand":  # without the prediction's note, which would tell of it
            parent, others = None, []
        return {
            "result": [*regions, *others],
            "was_cancelled": kind == "skipped",
            "lead_time": round(self._rng.uniform(1, 60), 1),
            "parent_prediction": parent,
        }


def _moved(region: Mapping[str, Any]) -> dict[str, Any]:
    """A region that somebody pushed a little."""
    mask = _mask(region)
    value = {**region["value"], "rle": encode_rle(np.roll(mask, mask.shape[1] // 40, axis=1))}
    return {**region, "value": value, "origin": "prediction-changed"}


def _drawn(like: Mapping[str, Any]) -> dict[str, Any]:
    """A region in a corner, drawn by hand."""
    mask = np.zeros_like(_mask(like))
    mask[2:12, 2:12] = True
    kept = {name: one for name, one in like.items() if name not in ("meta", "score")}
    value = {**like["value"], "rle": encode_rle(mask)}
    return {**kept, "id": os.urandom(5).hex(), "origin": "manual", "value": value}


def _mask(region: Mapping[str, Any]) -> Any:
    height, width = region["original_height"], region["original_width"]
    return decode_rle(region["value"]["rle"], height, width)


@dataclass
class Running:
    """A running `segzero up` of this module's own.

    Args:
        child: Its process; its log holds one JSON record a line.
        log: That log.
        data: Its data folder.
        access: How Label Studio reaches it.
    """

    child: Child
    log: Path
    data: Path
    access: BackendAccess
    killed: list[str] = field(default_factory=list)

    def kill(self, name: str) -> None:
        """End one of its processes by SIGKILL; it must come back by itself."""
        os.kill(self._pids(name)[-1], signal.SIGKILL)
        self.killed.append(name)

    def has_restarted(self, name: str) -> bool:
        return len(self._pids(name)) > self.killed.count(name)

    def _pids(self, name: str) -> list[int]:
        said = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{") and (record := json.loads(line))["process"] == "up":
                said += re.findall(rf"^{name} runs \(.*pid (\d+)\)", record["message"])
        return [int(pid) for pid in said]


@pytest.fixture(scope="module")
def running(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`segzero up` that compares its store with Label Studio every twenty seconds."""
    folder = tmp_path_factory.mktemp("up")
    port, login = free_port(), BackendLogin.generate()
    child = start_backend(
        port,
        studio.url,
        studio.login.token,
        login,
        folder / "log",
        data=folder / "data",
        more={"SEGZERO_RECONCILE_EVERY_S": str(RECONCILE_S)},
    )
    access = BackendAccess(
        f"http://127.0.0.1:{port}",
        login.user,
        SecretStr(login.password),
        SecretStr(login.webhook_secret),
    )
    try:
        wait_for_model(child, access.url)
        yield Running(child, folder / "log", folder / "data", access)
    finally:
        child.stop()


def stored(running: Running, project: ProjectKey) -> dict[int, Correction] | None:
    """What the store holds; None while Redis is away."""
    try:
        with closing(open_redis(Settings(data_dir=running.data))) as redis:
            store = CorrectionStore(redis)
            found: dict[int, Correction] = {}
            after = 0
            while True:
                page = store.page(project, after)
                found |= {one.key.annotation: one for one in page.corrections}
                after = page.after
                if page.is_last:
                    return found
    except (StoreError, ConfigError):
        return None


def differences(running: Running, annotator: Annotator, project: ProjectKey) -> list[str]:
    """In what the store is not what Label Studio says; nothing when they are equal."""
    found = stored(running, project)
    if found is None:
        return ["Redis is away"]
    problems = []
    true: set[int] = set()
    for annotation, task in annotator.annotations():
        if annotation["was_cancelled"]:
            continue
        number = annotation["id"]
        true.add(number)
        correction = found.get(number)
        if correction is None:
            problems.append(f"annotation {number} is not stored")
        elif correction.revision != identify(annotation, task, NAME).revision:
            problems.append(f"annotation {number} is stored in another revision")
    problems += [f"annotation {one} is stored but gone" for one in found.keys() - true]
    return problems


def test_the_store_equals_label_studio_whatever_was_killed(
    client: LabelStudio, studio: Studio, running: Running
) -> None:
    rng = random.Random(SEED)
    project_id = client.create_project("Sixty annotations", labelling_config()).id
    samples = [sample for sample in scene_samples(TASKS * 2, SEED) if sample.masks][:TASKS]
    tasks = import_samples(client, project_id, samples)
    report = connect(client, project_id, running.access)
    retrieve_all(client, project_id, tasks, report.model_version)
    usable = [one for one in client.tasks(project_id) if _regions(one)]
    assert len(usable) >= TASKS // 2
    project = ProjectKey(NAME, project_id)
    with closing(Annotator(studio, usable, rng)) as annotator:
        annotate_and_kill(annotator, running, rng)
        settle(running, annotator, project)
        found = stored(running, project)
        assert found is not None
        expected = {
            one: verdict for one, verdict in annotator.verdicts.items() if verdict != "skipped"
        }
        assert {one: made.verdict.value for one, made in found.items()} == expected
        assert {Verdict(one) for one in expected.values()} == set(Verdict)


def settle(running: Running, annotator: Annotator, project: ProjectKey) -> None:
    """Wait until both are equal, and still are a reconcile later.

    A job that failed when Redis was killed is tried again; where the webhook of a deletion was
    lost as well, it brings back what the next reconcile takes away.
    """
    give_up = time.monotonic() + SETTLE_S
    equal_since: float | None = None
    while equal_since is None or time.monotonic() - equal_since < RECONCILE_S + 5:
        problems = differences(running, annotator, project)
        equal_since = None if problems else equal_since or time.monotonic()
        assert time.monotonic() < give_up, problems
        time.sleep(1)


def annotate_and_kill(annotator: Annotator, running: Running, rng: random.Random) -> None:
    kills = {12: "serve", 27: "ingest", 44: "redis"}
    for number in range(ANNOTATIONS):
        made = annotator.create(KINDS[number % len(KINDS)])
        if number % 5 == 1:
            for _ in range(2):
                annotator.edit(made, rng.choice(KINDS[:4]))
        if number % 7 == 3:
            annotator.delete(rng.choice(list(annotator.verdicts)))
        if number in (20, 50):
            annotator.delete_task(rng.choice(list(annotator.tasks)))
        if number in kills:
            running.kill(kills[number])
    assert _wait_restarts(running, list(kills.values()))


def _regions(task: Task) -> list[dict[str, Any]]:
    results = task.predictions[0].result if task.predictions else []
    return [one for one in results if one["type"] == "brushlabels"]


def _wait_restarts(running: Running, names: list[str]) -> bool:
    give_up = time.monotonic() + SETTLE_S
    while not all(running.has_restarted(name) for name in names):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.5)
    return True
