"""`segzero sync` against a real Label Studio: no webhook arrives, and the store is exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from backend.annotations import identify
from backend.brush import encode_rle
from backend.demo.tasks import import_samples
from backend.label_studio import LabelStudio
from backend.templates import labelling_config
from segzero_ml import masks
from segzero_ml.corrections import Correction, Revision, Verdict
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.types import BoolMask
from tests.e2e.world import Studio
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

TASKS: Final = 12
SEED: Final = 43


def region(mask: BoolMask, number: int, **more: Any) -> dict[str, Any]:
    height, width = mask.shape
    return {
        "id": f"sync{number:06d}",
        "from_name": "brush",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_rle(mask), "brushlabels": ["Object"]},
        **more,
    }


class Project:
    """A project with predictions, worked on through Label Studio's API.

    Every task is predicted to show its true objects, or a corner where there are none.
    """

    def __init__(self, client: LabelStudio, http: httpx.Client) -> None:
        self.http = http
        self.samples = list(scene_samples(TASKS, SEED))
        self.id = client.create_project("Synchronised", labelling_config()).id
        self.tasks = import_samples(client, self.id, self.samples)
        self.shown: dict[int, list[dict[str, Any]]] = {}
        self.predictions: dict[int, int] = {}
        for task, sample in zip(self.tasks, self.samples, strict=True):
            drawn = sample.masks or (self.corner(task),)
            self.shown[task] = [region(one, 100 * task + n) for n, one in enumerate(drawn)]
            self.predictions[task] = client.add_prediction(task, self.shown[task], "tiny-1", 0.9).id

    def corner(self, task: int) -> BoolMask:
        """Something that is in no prediction as it is."""
        image = self.samples[self.tasks.index(task)].image()
        found: BoolMask = np.zeros((image.height, image.width), np.bool_)
        found[:20, :30] = True
        return found

    def by_hand(self, task: int) -> dict[str, Any]:
        return region(self.corner(task), task, origin="manual")

    def call(self, method: str, path: str, body: object = None, **params: Any) -> Any:
        answer = self.http.request(method, path, json=body, params=params)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def annotate(self, task: int, result: list[dict[str, Any]], **more: Any) -> int:
        body = {"result": result, "lead_time": 4.5, **more}
        return int(self.call("POST", f"/api/tasks/{task}/annotations/", body)["id"])

    def corrected(self, task: int, origin: str, mask: BoolMask | None = None) -> dict[str, Any]:
        """The first predicted region as it is submitted."""
        changed = {**self.shown[task][0], "origin": origin}
        if mask is not None:
            changed["value"] = {**changed["value"], "rle": encode_rle(mask)}
        return changed

    def edit(self, annotation: int, **changes: Any) -> None:
        self.call("PATCH", f"/api/annotations/{annotation}/", changes)

    def delete(self, annotation: int) -> None:
        self.call("DELETE", f"/api/annotations/{annotation}/")

    def act(self, action: str, *tasks: int) -> None:
        """What the Data Manager does to selected tasks."""
        chosen = {"selectedItems": {"all": False, "included": list(tasks)}}
        self.call("POST", "/api/dm/actions/", chosen, id=action, project=self.id)

    def revisions(self, label_studio: str) -> dict[int, tuple[Revision, bool]]:
        """Every annotation, read task by task: its revision, and whether it was skipped."""
        found = {}
        for task in self.call("GET", "/api/tasks/", project=self.id, page_size=500)["tasks"]:
            for one in self.call("GET", f"/api/tasks/{task['id']}/")["annotations"]:
                which = identify({**one, "project": self.id}, task, label_studio)
                found[which.key.annotation] = which.revision, bool(one["was_cancelled"])
        return found


class Synced:
    """A store, and `segzero sync` for it."""

    def __init__(self, folder: Path, studio: Studio, server: EmbeddedServer, store: Any) -> None:
        self.store: CorrectionStore = store
        self.environment = {
            **os.environ,
            "SEGZERO_DATA_DIR": str(folder),
            "SEGZERO_REDIS_URL": server.url,
            "SEGZERO_LABEL_STUDIO_URL": studio.url,
            "SEGZERO_LABEL_STUDIO_TOKEN": studio.login.token,
        }

    def sync(self, project: Project, *more: str) -> dict[str, Any]:
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "backend.cli", "sync"),
                *("--project", str(project.id), "--json", *more),
            ],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        [done] = json.loads(ran.stdout)["projects"]
        return dict(done)

    def get(self, project: Project, annotation: int) -> Correction | None:
        return self.store.get(ProjectKey("label-studio", project.id).annotation(annotation))

    def assert_equal(self, project: Project) -> None:
        key = ProjectKey("label-studio", project.id)
        expected = project.revisions("label-studio")
        assert set(self.store.annotation_ids(key, self.store.mark(key))) == set(expected)
        known = self.store.known(key, [*expected])
        assert {
            number: (one.revision, not one.has_truth) for number, one in known.items()
        } == expected


@pytest.fixture(scope="module")
def synced(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synced]:
    folder = tmp_path_factory.mktemp("synced")
    with EmbeddedServer(folder / "redis") as server, connect(server.url) as redis:
        yield Synced(folder, studio, server, CorrectionStore(redis))


@pytest.fixture(scope="module")
def project(studio: Studio, client: LabelStudio) -> Iterator[Project]:
    headers = {"Authorization": f"Token {studio.login.token}"}
    with httpx.Client(base_url=studio.url, headers=headers, timeout=60) as http:
        yield Project(client, http)


def made(project: Project) -> dict[str, int]:
    """Annotations by what became of the prediction; there is an imported one, too."""
    one, two, three, four, five, six, *_ = project.tasks
    project.http.delete(f"/api/predictions/{project.predictions[five]}/")

    def submit(task: int, *results: dict[str, Any]) -> int:
        parent = project.predictions[task]
        return project.annotate(task, list(results), parent_prediction=parent)

    [sample] = scene_samples(1, SEED + 1)
    imported = {
        "data": {"image": "/data/gone.png", "request": sample.request},
        "annotations": [{"result": [project.by_hand(one)], "ground_truth": True}],
    }
    project.call("POST", f"/api/projects/{project.id}/import", [imported])
    return {
        "accepted": submit(one, *({**it, "origin": "prediction"} for it in project.shown[one])),
        "edited": submit(two, project.corrected(two, "prediction-changed", project.corner(two))),
        "rejected": submit(three, project.by_hand(three)),
        "nothing_here": submit(four),
        "drawn_by_hand": project.annotate(five, [project.by_hand(five)]),
        "skipped": project.annotate(six, [], was_cancelled=True),
        "of another": project.annotate(six, [project.by_hand(six)]),
    }


def test_annotations_of_every_kind_are_followed_through_all_that_happens_to_them(
    synced: Synced, project: Project
) -> None:
    numbers = made(project)
    foretold = synced.sync(project, "--dry-run")
    first = synced.sync(project)
    synced.assert_equal(project)
    assert {**foretold, "dry_run": False} == first
    assert (first["tasks"], first["annotations"]) == (TASKS + 1, 8)
    assert (first["added"], first["withdrawn"], first["failed"]) == (7, 1, 0)
    for verdict in Verdict:
        found = synced.get(project, numbers[verdict])
        assert found is not None
        assert found.verdict is verdict
        assert found.image_sha256 is not None
    assert synced.get(project, numbers["skipped"]) is None
    edited = synced.get(project, numbers["edited"])
    assert edited is not None
    assert np.array_equal(masks.decode(edited.corrected[0].rle), project.corner(edited.task))

    again = synced.sync(project)
    assert again["unchanged"] == 8
    assert not any(again[kind] for kind in ("added", "updated", "withdrawn", "removed"))

    # Edited, skipped, taken up again; marked as the truth.
    tasks = project.tasks
    project.edit(numbers["accepted"], result=[project.by_hand(tasks[0])])
    project.edit(numbers["edited"], was_cancelled=True)
    project.edit(numbers["skipped"], was_cancelled=False, result=[project.by_hand(tasks[5])])
    project.edit(numbers["skipped"], ground_truth=True)
    second = synced.sync(project)
    synced.assert_equal(project)
    assert (second["updated"], second["withdrawn"]) == (2, 1)

    # Deleted in every way; the mark moves, without a word of where it was before.
    project.edit(numbers["of another"], ground_truth=True)
    project.delete(numbers["rejected"])
    project.call("DELETE", f"/api/tasks/{tasks[3]}/")
    project.act("delete_tasks_annotations", tasks[4])
    doomed = project.annotate(tasks[7], [project.by_hand(tasks[7])])
    assert synced.sync(project)["added"] == 1
    project.act("delete_tasks", tasks[7])
    late = project.annotate(tasks[6], [project.by_hand(tasks[6])])
    last = synced.sync(project)
    synced.assert_equal(project)
    assert (last["added"], last["removed"]) == (1, 1)
    gone = (numbers["rejected"], numbers["nothing_here"], numbers["drawn_by_hand"], doomed)
    assert not any(synced.get(project, number) for number in gone)
    marks = {numbers["of another"]: True, numbers["skipped"]: False, late: False}
    for number, marked in marks.items():
        found = synced.get(project, number)
        assert found is not None
        assert found.ground_truth is marked
