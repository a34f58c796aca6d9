"""`segzero models` and `segzero rollback`: on folders alone, no server needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segzero_ml.adapter_files import TENSORS_FILE
from segzero_ml.registry import Registry
from segzero_ml.versions import MANIFEST
from tests.backend.corrected import Run, runner
from tests.backend.versions import registry_in
from tests.segzero_ml.adapter_samples import INFO, write_adapter


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Project 7, with three versions that served one after the other."""
    monkeypatch.setenv("SEGZERO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    found = registry_in(tmp_path / "data", 7)
    for seed in range(3):
        adapter = write_adapter(tmp_path / f"adapter{seed}", seed=seed)
        found.promote(found.publish(adapter, INFO).id)
    return found


def ids(registry: Registry) -> list[str]:
    return [version.id for version in registry.versions()]


def test_without_any_it_says_where_they_come_from(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_DATA_DIR", str(tmp_path))
    for arguments in (["models"], ["models", "--project", "3"]):
        result = run(*arguments)
        assert result.code == 0
        assert f"There are none in {tmp_path}: each round of training that helps" in result.err


def test_versions_are_listed_newest_first_with_the_one_that_serves(
    registry: Registry, run: Run
) -> None:
    registry.rollback()
    lines = run("models").out.splitlines()[1:]
    assert [line.split()[1] for line in lines] == [*ids(registry), "base"]
    assert ["serves" in line for line in lines] == [False, True, False, False]
    assert all("mean_iou 0.75" in line and "r1" in line for line in lines[:3])


def test_as_json_a_program_finds_everything(registry: Registry, run: Run) -> None:
    found = json.loads(run("models", "--json", "--project", "7").out)["models"]
    assert [one["version"] for one in found] == [*ids(registry), "base"]
    assert [one["serves"] for one in found] == [True, False, False, False]
    assert found[0]["figures"] == {"mean_iou": 0.75}
    assert found[0]["round"] == INFO.round
    assert {one["project"] for one in found} == {7}


def test_damage_is_shown_and_ends_with_an_exit_code(registry: Registry, run: Run) -> None:
    newest, middle, oldest = registry.versions()
    (oldest.folder / MANIFEST).write_text("{")
    (middle.folder / TENSORS_FILE).write_bytes(b"")
    (registry.folder / "champion").write_text("{")
    assert run("models").code == 1
    result = run("models", "--verify", "--json")
    assert result.code == 1
    problems = {one["version"]: one["problem"] for one in json.loads(result.out)["models"]}
    assert problems[newest.id] is None
    assert "not the file that was published" in problems[middle.id]
    assert "manifest is damaged" in problems[oldest.id]
    assert "does not say which version serves" in problems["base"]


def test_rollback_goes_back_and_says_what_serves(registry: Registry, run: Run) -> None:
    newest, middle, oldest = ids(registry)
    assert f"would be answered by {middle}" in run("rollback", "--project", 7, "--dry-run").out
    assert registry.lineage().champion == newest
    assert f"is answered by {middle} now" in run("rollback", "--project", 7).out
    assert registry.lineage().champion == middle
    assert run("rollback", "--project", 7, "--to", oldest).code == 0
    assert registry.lineage().champion == oldest
    assert "the base now" in run("rollback", "--project", 7, "--to", "base").out
    assert registry.lineage().champion is None
    assert run("rollback", "--project", 7, "--to", newest).code == 0
    assert registry.lineage().champion == newest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--project", 7, "--to", "v9-00000000"), "There is no version 'v9-00000000'"),
        (("--project", 7, "--to", "../../etc"), "There is no version"),
        (("--project", 8), "nothing to go back to"),
    ],
)
def test_a_rollback_that_cannot_be_is_refused_with_a_remedy(
    registry: Registry, run: Run, arguments: tuple[object, ...], message: str
) -> None:
    before = registry.lineage()
    result = run("rollback", *arguments)
    assert result.code == 1
    assert message in result.err
    assert "segzero models lists" in result.err
    assert registry.lineage() == before
