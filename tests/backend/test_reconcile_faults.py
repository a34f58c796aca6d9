"""Case 17: Label Studio fails while it is read. Nothing is taken for deleted that is there."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from backend.reconcile import Reconciled, reconcile
from backend.reconcile.patience import Patience
from segzero_ml.errors import LabelStudioAuthError, LabelStudioError
from tests.backend.annotated import RING, brush
from tests.backend.corrected import World, world
from tests.backend.many_tasks import PROJECT, SETTINGS, Fault, ManyTasks, as_it_is, lists_tasks
from tests.backend.studio import refusal
from tests.training_hooks.store_samples import everything
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

KEY = ProjectKey(SETTINGS.label_studio_name, PROJECT)
AT_ONCE = Patience(sleep=lambda seconds: None)
TASKS = 130


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def store(_world: World) -> CorrectionStore:
    _world.client.flushdb()
    return _world.store


@pytest.fixture
def studio(store: CorrectionStore) -> ManyTasks:
    """Several pages of tasks, all known to the store; then some things change."""
    made = ManyTasks(random.Random(2))
    for _ in range(TASKS):
        made.annotate(made.add_task())
    sync(made, store)
    for number in [*made.annotations][::9]:
        made.edit(number)
    for number in [*made.annotations][::13]:
        made.delete(number)
    made.delete_task(60)
    made.calls.clear()
    return made


def sync(studio: ManyTasks, store: CorrectionStore, **options: Any) -> Reconciled:
    with studio.client() as client:
        return reconcile(client, store, PROJECT, SETTINGS, **{"patience": AT_ONCE, **options})


def stored(store: CorrectionStore) -> set[int]:
    return set(store.annotation_ids(KEY, store.mark(KEY)))


def assert_equal(store: CorrectionStore, studio: ManyTasks) -> None:
    corrections, withdrawn = studio.truth()
    assert everything(store, KEY) == corrections
    assert stored(store) == set(corrections) | set(withdrawn)


def changed(response: httpx.Response, change: Callable[[dict[str, Any]], None]) -> httpx.Response:
    body = response.json()
    change(body)
    return httpx.Response(200, json=body)


def broken_page(response: httpx.Response, rng: random.Random) -> httpx.Response:
    """An answer to a question for tasks that is none, or only a part of it."""

    def without_one(body: dict[str, Any]) -> None:
        if body["tasks"]:
            body["tasks"].pop(rng.randrange(len(body["tasks"])))

    def without_end(body: dict[str, Any]) -> None:
        del body["tasks"][rng.randrange(len(body["tasks"]) + 1) :]

    def without_annotations(body: dict[str, Any]) -> None:
        for task in body["tasks"]:
            task.pop("annotations", None)

    half = response.content[: len(response.content) // 2]
    whole: list[Callable[[], httpx.Response]] = [
        lambda: refusal(500, "Internal error"),
        lambda: httpx.Response(502, text="<html>Bad gateway</html>"),
        lambda: httpx.Response(200, text="<html>Please wait</html>"),
        lambda: httpx.Response(200, content=half),
        lambda: httpx.Response(200, json=[]),
        lambda: httpx.Response(200, json={"tasks": [], "total": TASKS}),
        lambda: httpx.Response(200, json={"tasks": [None], "total": 1}),
        lambda: changed(response, without_one),
        lambda: changed(response, without_end),
        lambda: changed(response, without_annotations),
    ]
    return rng.choice(whole)()


@pytest.mark.parametrize("seed", range(10))
def test_pages_that_fail_or_lack_something_now_and_then_make_no_false_tombstone(
    store: CorrectionStore, studio: ManyTasks, seed: int
) -> None:
    rng = random.Random(seed)
    last: list[httpx.Response] = []

    def fault(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        chance = rng.random()
        if chance < 0.6:
            if lists_tasks(request):
                last[:] = [httpx.Response(200, content=response.content)]
            return response
        if not lists_tasks(request):
            return refusal(503, "Try later") if chance < 0.8 else response
        if chance < 0.7 and last:
            return last[0]  # a page that repeats
        return broken_page(response, rng)

    studio.fault = fault
    try:
        done = sync(studio, store)
    except LabelStudioError:
        done = None
    there = set(studio.annotations)
    lost = {n for n in there if not store.known(KEY, [n])}
    if done is not None and done.is_equal:
        assert_equal(store, studio)
    studio.fault = as_it_is
    # Nothing that is there was taken for deleted: a listing without faults finds no tombstone
    # that it has to lift.
    assert not lost
    assert sync(studio, store).is_equal
    assert_equal(store, studio)


def test_a_page_that_lacks_a_task_is_asked_for_again(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    once = iter([True])

    def fault(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if lists_tasks(request) and next(once, False):
            return changed(response, lambda body: body["tasks"].pop(7))
        return response

    studio.fault = fault
    assert sync(studio, store).is_equal
    assert_equal(store, studio)


def without_task(number: int) -> Fault:
    def fault(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if not lists_tasks(request):
            return response
        return changed(
            response,
            lambda body: body.update(tasks=[t for t in body["tasks"] if t["id"] != number]),
        )

    return fault


def test_a_task_that_never_shows_leaves_the_list_incomplete_and_nothing_is_removed(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    before = stored(store)
    seen = store.watermark(KEY, "reconcile")
    studio.fault = without_task(20)
    done = sync(studio, store)
    assert not done.is_complete
    assert not done.is_equal
    assert done.removed == 0
    assert done.updated > 0
    assert stored(store) == before
    assert store.watermark(KEY, "reconcile") == seen


def test_a_list_that_hides_a_task_and_its_count_makes_no_tombstone(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    [hidden] = [n for n, one in studio.annotations.items() if one["task"] == 20]

    def fault(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if not lists_tasks(request):
            return response

        def hide(body: dict[str, Any]) -> None:
            after = json.loads(request.url.params["query"])["filters"]["items"][0]["value"]
            body["tasks"] = [one for one in body["tasks"] if one["id"] != 20]
            body["total"] -= after < 20

        return changed(response, hide)

    studio.fault = fault
    done = sync(studio, store)
    assert hidden in stored(store)
    assert done.removed
    assert [(one.annotation, one.task) for one in done.failures] == [(hidden, None)]
    assert not done.is_equal


@pytest.mark.parametrize(
    "answer",
    [
        refusal(500, "Internal error"),
        refusal(403, "You do not have permission to perform this action."),
        httpx.Response(404, text="<html>Not found</html>"),
        httpx.Response(404, json={}),
        httpx.Response(200, json={"id": 1, "project": PROJECT}),
        httpx.Response(200, text="{"),
    ],
)
def test_only_label_studios_own_word_that_an_annotation_is_gone_removes_it(
    store: CorrectionStore, studio: ManyTasks, answer: httpx.Response
) -> None:
    before = stored(store)

    def fault(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if "/annotations/" not in request.url.path:
            return response
        return httpx.Response(answer.status_code, content=answer.content)

    studio.fault = fault
    with pytest.raises(LabelStudioError):
        sync(studio, store)
    assert stored(store) == before
    studio.fault = as_it_is
    sync(studio, store)
    assert_equal(store, studio)


def test_a_refused_token_is_not_tried_again(store: CorrectionStore, studio: ManyTasks) -> None:
    studio.fault = lambda request, response: refusal(401, "Invalid token.")
    with pytest.raises(LabelStudioAuthError):
        sync(studio, store)
    assert len(studio.calls) == 1


def test_a_task_that_breaks_every_page_fails_alone(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    def fault(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if not lists_tasks(request) or request.url.params["fields"] != "all":
            return response
        breaks = any(task["id"] == 31 for task in response.json()["tasks"])
        return refusal(500, "Internal error") if breaks else response

    studio.fault = fault
    mine = [n for n, one in studio.annotations.items() if one["task"] == 31]
    done = sync(studio, store)
    assert done.is_complete
    assert 31 in [one.task for one in done.failures]
    assert set(mine) <= stored(store)
    assert stored(store) == set(studio.annotations)
    assert done.tasks == TASKS - 1


def test_heavy_tasks_come_in_smaller_pages_within_bounded_memory(store: CorrectionStore) -> None:
    studio = ManyTasks(random.Random(3))
    heavy = brush(RING) | {"id": "x" * 4, "meta": {"text": ["y" * 2_000_000]}}
    for _ in range(60):
        number = studio.annotate(studio.add_task())
        studio.annotations[number] |= {"was_cancelled": True, "result": [heavy]}
    tracemalloc.start()
    done = sync(studio, store)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.withdrawn == 60
    # 120 MB in all. The fake makes its answers in this process as well.
    assert peak < 330_000_000
    sizes = {int(call.url.params["page_size"]) for call in studio.calls if lists_tasks(call)}
    assert len(sizes) > 1


def test_two_at_once_do_no_harm(store: CorrectionStore, studio: ManyTasks) -> None:
    depth = [0]

    def another(request: httpx.Request) -> None:
        if depth[0] < 1:
            depth[0] += 1
            sync(studio, store)

    studio.before = another
    sync(studio, store)
    assert_equal(store, studio)
