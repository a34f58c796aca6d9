"""`segzero sync` over HTTP, on a real Redis and a real store."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.backend.corrected import Run, World, runner, world
from tests.backend.many_tasks import PROJECT, SETTINGS, ManyTasks, lists_tasks, served
from tests.backend.studio import TOKEN, refusal
from tests.training_hooks.store_samples import correction, everything
from training_hooks.loop_reader import GONE, note_gone
from training_hooks.store_values import ProjectKey

KEY = ProjectKey(SETTINGS.label_studio_name, PROJECT)


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def here(_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    return _world.use(monkeypatch)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture
def studio(here: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[ManyTasks]:
    """Ten tasks annotated by hand, and where to find them."""
    made = ManyTasks(random.Random(5))
    for _ in range(10):
        made.annotate(made.add_task(), was_cancelled=False)
    with served(made) as url:
        monkeypatch.setenv("SEGZERO_LABEL_STUDIO_URL", url)
        monkeypatch.setenv("SEGZERO_LABEL_STUDIO_TOKEN", TOKEN)
        yield made


def test_it_makes_the_store_equal_and_says_what_that_took(
    here: World, studio: ManyTasks, run: Run
) -> None:
    ran = run("sync", "--project", PROJECT)
    assert ran.code == 0
    corrections, _ = studio.truth()
    assert len(corrections) == 10
    assert {n: one.revision for n, one in everything(here.store, KEY).items()} == {
        n: one.revision for n, one in corrections.items()
    }
    assert " ".join(ran.out.split()) == (
        "Project 7: 10 tasks, 10 annotations; 10 added, 0 updated, 0 withdrawn, 0 removed, "
        "0 unchanged, 0 failed."
    )
    assert "pictures of 10 tasks could not be fetched" in ran.err
    assert TOKEN not in ran.out + ran.err


def test_json_holds_the_counts_and_nothing_else(here: World, studio: ManyTasks, run: Run) -> None:
    ran = run("sync", "--project", PROJECT, "--json")
    assert not ran.err
    first = json.loads(ran.out)
    gone, edited, skipped, *_ = studio.truth()[0]
    studio.delete(gone)
    studio.edit(edited, was_cancelled=False, result=[])
    studio.edit(skipped, was_cancelled=True)
    [second] = json.loads(run("sync", "--project", PROJECT, "--json").out)["projects"]
    assert first["projects"][0]["added"] == len(studio.truth()[0]) + 2
    assert first["errors"] == []
    counts = {name: second[name] for name in ("added", "updated", "withdrawn", "removed")}
    assert counts == {"added": 0, "updated": 1, "withdrawn": 1, "removed": 1}
    assert second["is_complete"] is True


def test_a_dry_run_changes_nothing_and_says_so(here: World, studio: ManyTasks, run: Run) -> None:
    ran = run("sync", "--project", PROJECT, "--dry-run")
    assert ran.code == 0
    assert "Nothing was changed" in ran.out
    assert not everything(here.store, KEY)
    assert here.store.mark(KEY) == 0


def test_all_means_every_project_that_matters(here: World, studio: ManyTasks, run: Run) -> None:
    other = ProjectKey(SETTINGS.label_studio_name, 99)
    here.store.upsert(correction(1, project=other))
    ran = run("sync", "--all")
    assert ran.code == 0
    assert "Project 99 is gone" in ran.err
    assert len(everything(here.store, KEY)) == len(studio.truth()[0])
    assert len(everything(here.store, other)) == 1


def test_which_projects_are_gone_is_remembered_until_they_are_seen_and_a_dry_run_changes_nothing(
    here: World, studio: ManyTasks, run: Run
) -> None:
    other = ProjectKey(SETTINGS.label_studio_name, 99)
    here.store.upsert(correction(1, project=other))
    run("sync", "--all", "--dry-run")
    assert here.store.watermark(other, GONE) is None
    for arguments in (("--all",), ("--project", PROJECT)):
        note_gone(here.store, KEY, datetime.now(UTC))
        run("sync", *arguments, "--dry-run")
        assert here.store.watermark(KEY, GONE) is not None
        run("sync", *arguments)
        assert here.store.watermark(KEY, GONE) is None
    assert here.store.watermark(other, GONE) is not None


def test_an_annotation_that_cannot_be_read_is_named_and_makes_another_exit_code(
    here: World, studio: ManyTasks, run: Run
) -> None:
    bad = studio.annotate(4, was_cancelled=False)
    studio.annotations[bad]["result"] = [{"type": "brushlabels", "value": {"rle": [1]}}, 5]
    ran = run("sync", "--project", PROJECT)
    assert ran.code == 3
    assert f"annotation {bad} of task 4" in " ".join(ran.out.split())


def test_a_list_that_is_not_complete_is_said(here: World, studio: ManyTasks, run: Run) -> None:
    run("sync", "--project", PROJECT)
    before = everything(here.store, KEY)
    studio.fault = lambda request, response: (
        type(response)(200, json={**response.json(), "tasks": response.json()["tasks"][1:]})
        if lists_tasks(request) and len(response.json()["tasks"]) > 1
        else response
    )
    ran = run("sync", "--project", PROJECT)
    assert ran.code == 3
    assert "contradicts itself" in " ".join(ran.out.split())
    assert everything(here.store, KEY) == before


def test_a_project_that_is_not_there_is_an_error(here: World, studio: ManyTasks, run: Run) -> None:
    ran = run("sync", "--project", 8)
    assert ran.code == 1
    assert "no project 8" in ran.err


def test_with_all_one_project_that_fails_does_not_stop_the_others(
    here: World, studio: ManyTasks, run: Run
) -> None:
    studio.fault = lambda request, response: (
        refusal(403, "No.") if lists_tasks(request) else response
    )
    ran = run("sync", "--all", "--json")
    assert ran.code == 1
    [error] = json.loads(ran.out)["errors"]
    assert error["project"] == PROJECT
    assert "may not do this" in error["message"]


@pytest.mark.parametrize("given", [(), ("--project", 7, "--all")])
def test_it_wants_one_project_or_all(here: World, run: Run, given: tuple[object, ...]) -> None:
    ran = run("sync", *given)
    assert ran.code == 2
    assert "Give --project or --all." in " ".join(ran.err.split())


def test_without_a_label_studio_it_says_what_to_set(here: World, run: Run) -> None:
    ran = run("sync", "--project", 7)
    assert ran.code == 1
    assert "SEGZERO_LABEL_STUDIO_URL" in ran.err
