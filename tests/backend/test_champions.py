"""Model versions of projects: swapped while calls are answered, refused when damaged."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.champions import Champions
from backend.known_version import version_ahead
from backend.model_folders import registries, registry_of
from backend.settings import load_settings
from segzero_ml.errors import ModelError
from segzero_ml.pipeline import Pipeline
from segzero_ml.presets import get_preset
from segzero_ml.tiny.scenes import Scene
from tests.backend.serving import CONFIG, Running, Serve, naming, predict_body, task
from tests.backend.versions import (
    Trained,
    adapters_in_memory,
    promote_damaged,
    registry_in,
    truncate,
)


@pytest.fixture(scope="module")
def trained(scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("loras"), scenes, (1, 2))


@pytest.fixture
def own_pipeline() -> Pipeline:
    """The bundled pair for one test alone, since adapters are laid over it."""
    return Pipeline.load("tiny")


def setup_version(running: Running, project: int) -> str:
    reply = running.post("/setup", {"schema": CONFIG, "project": f"{project}.1700000000"})
    assert reply.status_code == 200
    version: str = reply.json()["model_version"]
    return version


def wait_for_version(running: Running, project: int, version: str) -> None:
    until = time.monotonic() + 120
    while (found := setup_version(running, project)) != version:
        assert time.monotonic() < until, found
        time.sleep(0.1)


class Load:
    """Calls /predict for one project without a pause, from several threads."""

    def __init__(self, running: Running, bodies: list[dict[str, Any]]) -> None:
        self._running = running
        self._stop = threading.Event()
        self.replies: list[tuple[float, dict[str, Any]]] = []
        self.failures: list[str] = []
        self._pool = ThreadPoolExecutor(len(bodies))
        self._ends = [self._pool.submit(self._call, body) for body in bodies]

    def _call(self, body: dict[str, Any]) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            reply = self._running.post("/predict", body)
            if reply.status_code == 200:
                self.replies.append((started, reply.json()))
            else:
                self.failures.append(reply.text)

    def wait_for_replies(self, more: int) -> None:
        goal, until = len(self.replies) + more, time.monotonic() + 120
        while len(self.replies) < goal and not self.failures:
            assert time.monotonic() < until
            time.sleep(0.05)

    def stop(self) -> None:
        self._stop.set()
        for end in self._ends:
            end.result()
        self._pool.shutdown()


@pytest.mark.slow
def test_versions_change_under_load_without_an_error_and_each_response_has_one(
    serve: Serve, scenes: list[Scene], trained: Trained, own_pipeline: Pipeline, tmp_path: Path
) -> None:
    registry = registry_in(tmp_path)
    base = own_pipeline.model_version
    first, second = (trained.publish(registry, seed) for seed in (1, 2))
    tasks = [task(n, request=naming(scenes[n])) for n in range(3)]
    bodies = [{**predict_body(*tasks), "project": project} for project in ("1.1", "1.1", "2.1")]
    with serve(lambda: own_pipeline, data_dir=tmp_path, batch_size=2) as running:
        running.wait_until_ready()
        load = Load(running, bodies)
        expected = [base]
        for change, version_id in (
            (lambda: registry.promote(first), first),
            (lambda: registry.promote(second), second),
            (registry.rollback, first),
        ):
            load.wait_for_replies(2)
            change()
            expected.append(f"{base}+{version_id}")
            wait_for_version(running, 1, expected[-1])
            load.wait_for_replies(4)
        assert set(running.get("/versions").json()["versions"]) == {base, expected[-1]}
        load.stop()
        assert setup_version(running, 2) == base
    assert load.failures == []
    order: list[str] = []
    for _, reply in sorted(load.replies, key=lambda one: one[0]):
        answered = [result["model_version"] for result in reply["results"] if result]
        assert set(answered) <= {reply["model_version"]}
        order.append(reply["model_version"])
    assert set(order) == set(expected)
    assert len(adapters_in_memory(own_pipeline)) == 1


def test_a_damaged_version_is_refused_and_the_old_one_serves_also_after_a_restart(
    serve: Serve,
    scenes: list[Scene],
    trained: Trained,
    tiny_pipeline: Pipeline,
    tmp_path: Path,
) -> None:
    registry = registry_in(tmp_path)
    good, damaged = (trained.publish(registry, seed) for seed in (1, 2))
    registry.promote(good)
    refused = 'segzero_model_versions_total{outcome="refused"} 1.0'
    for start in range(2):
        served = f"{tiny_pipeline.model_version}+{good}"
        with serve(partial(Pipeline.load, "tiny"), data_dir=tmp_path) as running:
            running.wait_until_ready()
            assert setup_version(running, 1) == served
            if start == 0:
                promote_damaged(registry, damaged)
            until = time.monotonic() + 60
            while refused not in running.get("/metrics").text:
                assert time.monotonic() < until
                time.sleep(0.1)
            assert setup_version(running, 1) == served
            (result,) = running.predict(task(0, request=naming(scenes[0])))
            assert result["model_version"] == served


def test_setup_tells_the_champion_while_the_model_still_loads(
    trained: Trained, own_pipeline: Pipeline, tmp_path: Path
) -> None:
    settings = load_settings(data_dir=tmp_path)
    registry = registry_of(settings, 7)
    champion = registry.promote(trained.publish(registry, 1)).id
    go = threading.Event()

    def load() -> Pipeline:
        go.wait(60)
        return own_pipeline

    app = create_app(
        settings, load_pipeline=load, expect_version=lambda: version_ahead(get_preset("tiny"))
    )
    expected = f"{own_pipeline.model_version}+{champion}"
    with TestClient(app, base_url="http://localhost") as client:

        def version(project: object) -> str:
            body = {"schema": "", "project": project}
            found: str = client.post("/setup", json=body).json()["model_version"]
            return found

        until = time.monotonic() + 60
        while "loading" in version("7.1"):
            assert time.monotonic() < until
        assert client.get("/health").json()["model"] == "loading"
        assert version("7.1700000000.5") == own_pipeline.model_version  # names no project
        assert version("7.1") == version(7) == expected
        go.set()
        while client.get("/ready").status_code != 200:
            assert time.monotonic() < until
        assert version("7.1700000000") == expected
        for other in ("8.1", None, "", "seven", [7], {"id": 7}, True, -7, "9" * 5000, "\u0667"):
            assert version(other) == own_pipeline.model_version


@pytest.fixture
def champions(tmp_path: Path, own_pipeline: Pipeline) -> Champions:
    settings = load_settings(data_dir=tmp_path)
    made = Champions(lambda: registries(settings), look_s=0)
    made.begin(own_pipeline)
    made.refresh()
    return made


def test_a_call_keeps_its_version_until_it_ends(
    champions: Champions, trained: Trained, scenes: list[Scene], tmp_path: Path
) -> None:
    registry = registry_in(tmp_path)
    first, second = (trained.publish(registry, seed) for seed in (1, 2))
    registry.promote(first)
    champions.refresh()
    with champions.lease(1) as old:
        assert old.model_version.endswith(first)
        registry.promote(second)
        champions.refresh()
        champions.refresh()
        with champions.lease(1) as new:
            assert new.model_version.endswith(second)
        (prediction,) = old.predict([scenes[0].image], ["the star"], batch_size=1)
        assert prediction.model_version == old.model_version
    champions.refresh()
    with pytest.raises(ModelError, match="not served any more"):
        old.predict([scenes[0].image], ["the star"], batch_size=1)


def test_a_damaged_pointer_or_a_removed_folder_breaks_nothing(
    champions: Champions, trained: Trained, tmp_path: Path
) -> None:
    registry = registry_in(tmp_path)
    champion = registry.promote(trained.publish(registry, 1)).id
    (registry.folder.parent / "label-studio-x").mkdir()
    (registry.folder.parent / "label-studio-007").mkdir()
    (registry.folder.parent / "another-1").mkdir()
    champions.refresh()
    (registry.folder / "champion").write_text("{")
    champions.refresh()
    assert str(champions.version(1, None)).endswith(champion)
    shutil.rmtree(registry.folder)
    champions.refresh()
    assert champions.version(1, None) == champions.version(None, None)


def test_a_version_that_was_refused_is_tried_again_when_it_is_named_again(
    champions: Champions, trained: Trained, tmp_path: Path
) -> None:
    registry = registry_in(tmp_path)
    version = registry.version(trained.publish(registry, 1))
    whole = {path.name: path.read_bytes() for path in version.folder.iterdir()}
    registry.promote(version.id, lambda: truncate(version))
    champions.refresh()
    assert champions.version(1, None) == champions.version(None, None)
    for name, data in whole.items():
        (version.folder / name).write_bytes(data)
    registry.rollback(version.id)
    champions.refresh()
    assert str(champions.version(1, None)).endswith(version.id)


def test_nothing_answers_before_the_base_is_there() -> None:
    champions = Champions(dict)
    with pytest.raises(ModelError, match="not loaded"), champions.lease(None):
        pass
    assert champions.versions() == []
    assert champions.version(1, None) is None
