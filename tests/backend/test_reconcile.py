"""After reconciling the store equals Label Studio, whatever happened before and on the way."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from backend.annotations import ImageFacts, find_prediction
from backend.intake.write import write_annotation
from backend.labelling import Labelling
from backend.reconcile import Reconciled, reconcile
from backend.reconcile.patience import Patience
from segzero_ml.errors import LabellingConfigError, LabelStudioError, LabelStudioUnreachableError
from segzero_ml.types import ImageSize
from tests.backend.corrected import World, world
from tests.backend.many_tasks import LABELLING, PROJECT, SETTINGS, ManyTasks, lists_tasks
from tests.backend.studio import refusal
from tests.training_hooks.store_samples import everything
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

KEY = ProjectKey(SETTINGS.label_studio_name, PROJECT)
AT_ONCE = Patience(sleep=lambda seconds: None)
SHA = "ab" * 32


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def store(_world: World) -> CorrectionStore:
    _world.client.flushdb()
    return _world.store


@pytest.fixture
def studio() -> ManyTasks:
    """Thirty tasks, each annotated once or twice."""
    made = ManyTasks(random.Random(1))
    for _ in range(30):
        task = made.add_task()
        for _ in range(made.rng.choice([1, 1, 2])):
            made.annotate(task)
    return made


def sync(studio: ManyTasks, store: CorrectionStore, **options: Any) -> Reconciled:
    with studio.client() as client:
        return reconcile(client, store, PROJECT, SETTINGS, **{"patience": AT_ONCE, **options})


Event = tuple[dict[str, Any], dict[str, Any]]


def event(studio: ManyTasks, number: int) -> Event:
    """What a webhook says of an annotation now."""
    body = studio.annotations[number]
    return dict(body), studio.tasks[body["task"]]


def deliver(store: CorrectionStore, sent: Event) -> None:
    """A webhook arrives."""
    body, task = sent
    came_from = find_prediction(body, task["predictions"])
    write_annotation(store, body, task, came_from, LABELLING, SETTINGS, None)


def assert_equal(store: CorrectionStore, studio: ManyTasks) -> None:
    corrections, withdrawn = studio.truth()
    assert everything(store, KEY) == corrections
    assert set(store.annotation_ids(KEY, store.mark(KEY))) == set(corrections) | set(withdrawn)
    known = store.known(KEY, [*withdrawn])
    assert {number: one.revision for number, one in known.items()} == withdrawn
    assert not any(one.has_truth for one in known.values())


def test_an_empty_store_is_filled(store: CorrectionStore, studio: ManyTasks) -> None:
    corrections, withdrawn = studio.truth()
    found = sync(studio, store)
    assert_equal(store, studio)
    assert (found.tasks, found.annotations) == (30, len(studio.annotations))
    assert (found.added, found.withdrawn) == (len(corrections), len(withdrawn))
    assert (found.updated, found.removed, found.unchanged, found.failed) == (0, 0, 0, 0)
    assert found.is_complete
    assert found.is_equal


def test_a_second_time_changes_nothing_and_builds_nothing(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    sync(studio, store)
    mark = store.mark(KEY)
    found = sync(studio, store, image_of=lambda *_: pytest.fail("an image was looked up"))
    assert found.unchanged == found.annotations == len(studio.annotations)
    assert store.mark(KEY) == mark


def test_what_changed_is_said_by_kind(store: CorrectionStore, studio: ManyTasks) -> None:
    sync(studio, store)
    first, second, third, fourth, *_ = studio.truth()[0]
    studio.edit(first, was_cancelled=False, result=[])
    studio.edit(second, was_cancelled=True)
    studio.delete(third)
    task = studio.annotations[fourth]["task"]
    gone = sum(one["task"] == task for one in studio.annotations.values())
    studio.delete_task(task)
    studio.annotate(studio.add_task(), was_cancelled=False)
    found = sync(studio, store)
    assert_equal(store, studio)
    assert (found.added, found.updated, found.withdrawn) == (1, 1, 1)
    assert found.removed == 1 + gone


def test_a_skipped_annotation_that_is_taken_up_again_is_stored(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    number = studio.annotate(1, was_cancelled=True)
    sync(studio, store)
    assert store.get(studio.key(number)) is None
    studio.edit(number, was_cancelled=False)
    sync(studio, store)
    assert store.get(studio.key(number)) is not None


def test_a_mark_of_ground_truth_that_moves_without_a_new_time_is_noticed(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    one = studio.annotate(1, was_cancelled=False)
    other = studio.annotate(1, was_cancelled=False)
    for number in (one, other, one, other):
        studio.mark_ground_truth(number)
        sync(studio, store)
        assert_equal(store, studio)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_people_do_and_whichever_webhooks_arrive_the_store_ends_up_equal(
    store: CorrectionStore, seed: int
) -> None:
    rng = random.Random(seed)
    studio = ManyTasks(rng)
    sent: list[Event] = []
    for _ in range(4):
        for _ in range(60):
            before = set(studio.annotations)
            studio.do_something()
            sent += [event(studio, number) for number in studio.annotations]
            # Late, early, twice, never: any event of the past may arrive at any time.
            for one in rng.choices(sent, k=rng.randrange(3)) if sent else ():
                deliver(store, one)
            for number in before - set(studio.annotations):
                if rng.random() < 0.5:
                    store.delete(studio.key(number))
        found = sync(studio, store)
        assert found.is_equal
        assert_equal(store, studio)


def test_case_16_five_hundred_edits_while_the_backend_was_off_are_made_good(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    sync(studio, store)
    for _ in range(500):
        studio.do_something()
    found = sync(studio, store)
    assert_equal(store, studio)
    assert found.is_equal
    assert found.added
    assert found.updated
    assert found.removed


def test_case_18_a_clock_that_is_a_day_off_makes_no_difference(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    late, early = studio.annotate(1, was_cancelled=False), studio.annotate(2, was_cancelled=False)
    sync(studio, store)
    for days, number in ((1, late), (-1, early)):
        studio.now = datetime.now(UTC) + timedelta(days=days)
        for _ in range(3):
            studio.edit(number, was_cancelled=False)
            sync(studio, store)
            assert_equal(store, studio)
    # An event that arrives late loses by Label Studio's clock, wherever ours stands.
    stale = event(studio, early)
    studio.edit(early, was_cancelled=False)
    sync(studio, store)
    deliver(store, stale)
    assert_equal(store, studio)
    # Had that clock gone back in between, the list would put it right.
    stale = event(studio, late)
    studio.edit(late, was_cancelled=False)
    sync(studio, store)
    deliver(store, stale)
    sync(studio, store)
    assert_equal(store, studio)


def test_case_18_a_restored_backup_of_label_studio_is_followed(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    number = studio.annotate(1, was_cancelled=False)
    backup = dict(studio.annotations[number])
    studio.edit(number, was_cancelled=False)
    removed = studio.annotate(2, was_cancelled=False)
    kept_copy = studio.annotations[removed]
    sync(studio, store)
    studio.delete(removed)
    store.delete(studio.key(removed))
    sync(studio, store)
    studio.annotations[number], studio.annotations[removed] = backup, kept_copy
    sync(studio, store)
    assert_equal(store, studio)


def test_a_webhook_during_the_listing_is_newer_than_the_list(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    sync(studio, store)
    number = next(iter(studio.truth()[0]))
    listed = dict(studio.annotations[number])
    studio.edit(number, was_cancelled=False, result=[])
    newest = studio.annotations[number]
    sent = event(studio, number)
    studio.annotations[number] = listed

    def arrives_first(request: httpx.Request) -> None:
        if lists_tasks(request):
            deliver(store, sent)

    studio.before = arrives_first
    sync(studio, store)
    studio.annotations[number] = newest
    assert_equal(store, studio)


def test_an_annotation_deleted_during_the_listing_does_not_come_back(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    number = next(iter(studio.truth()[0]))

    def deletes(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if lists_tasks(request) and number in studio.annotations:
            studio.delete(number)
            store.delete(studio.key(number))
        return response

    studio.fault = deletes
    sync(studio, store)
    assert_equal(store, studio)


def test_tasks_that_come_and_go_during_the_listing_leave_nothing_out(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    for _ in range(200):
        studio.annotate(studio.add_task())
    sync(studio, store)
    busy = iter(range(6))

    def somebody_works(request: httpx.Request) -> None:
        if lists_tasks(request) and next(busy, None) is not None:
            studio.delete_task(min(studio.tasks))
            studio.annotate(studio.add_task())

    studio.before = somebody_works
    found = sync(studio, store)
    assert found.is_complete
    studio.before = lambda request: None
    sync(studio, store)
    assert_equal(store, studio)


def test_an_annotation_that_cannot_be_read_fails_alone_and_its_older_correction_stays(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    number = studio.annotate(3, was_cancelled=False)
    sync(studio, store)
    older = store.get(studio.key(number))
    assert older is not None
    bad = dict(studio.annotations[number]["result"][0] if older.corrected else {})
    bad |= {"id": "bad", "type": "brushlabels", "from_name": "brush", "to_name": "image"}
    bad |= {"original_width": 40, "original_height": 24, "value": {"format": "rle", "rle": [1]}}
    studio.edit(number, was_cancelled=False, result=[bad])
    other = studio.annotate(4, was_cancelled=False)
    found = sync(studio, store)
    assert found.failed == 1
    assert (found.failures[0].task, found.failures[0].annotation) == (3, number)
    assert found.failures[0].reason
    assert not found.is_equal
    assert store.get(studio.key(number)) == older
    assert store.get(studio.key(other)) is not None


def test_a_dry_run_says_what_would_change_and_changes_nothing(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    sync(studio, store)
    for _ in range(100):
        studio.do_something()
    mark, before = store.mark(KEY), everything(store, KEY)
    seen = store.watermark(KEY, "reconcile")
    said = sync(studio, store, dry_run=True)
    assert store.mark(KEY) == mark
    assert everything(store, KEY) == before
    assert store.watermark(KEY, "reconcile") == seen
    done = sync(studio, store)
    assert said.to_json() | {"dry_run": False} == done.to_json()
    assert done.removed


def test_images_are_looked_up_once_a_task_and_only_for_what_is_new(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    sync(studio, store)
    task = studio.add_task()
    numbers = [studio.annotate(task, was_cancelled=False) for _ in range(3)]
    asked: list[int] = []

    def image_of(one: Mapping[str, Any], labelling: Labelling) -> ImageFacts:
        assert labelling == LABELLING
        asked.append(one["id"])
        return ImageFacts(ImageSize(width=40, height=24), SHA)

    sync(studio, store, image_of=image_of)
    assert asked == [task]
    for number in numbers:
        stored = store.get(studio.key(number))
        assert stored is not None
        assert stored.image_sha256 == SHA


def test_the_watermark_says_when_the_reconcile_began(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    began = datetime.now(UTC)
    sync(studio, store)
    seen = store.watermark(KEY, "reconcile")
    assert seen is not None
    assert began <= seen <= datetime.now(UTC)


def test_progress_goes_from_nothing_to_all(store: CorrectionStore, studio: ManyTasks) -> None:
    for _ in range(100):
        studio.annotate(studio.add_task())
    told: list[tuple[int, int, str]] = []
    sync(studio, store, progress=lambda *args: told.append(args))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][:2] == (130, 130)
    assert len(told) > 1


def test_listing_asks_for_no_predictions_where_the_project_fetches_them_at_every_page(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    studio.fetches_predictions = True
    sync(studio, store)
    asked = [dict(call.url.params) for call in studio.calls if lists_tasks(call)]
    assert all(one.get("review") == "true" for one in asked)


def test_a_project_that_is_not_there_is_an_error_and_removes_nothing(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    sync(studio, store)
    before = everything(store, KEY)
    studio.fault = lambda request, response: refusal(404, "No Project matches the given query.")
    with pytest.raises(LabelStudioError, match="no project 7"):
        sync(studio, store)
    assert everything(store, KEY) == before


def test_a_labelling_config_that_cannot_be_served_is_said(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    studio.config = "<View/>"
    with pytest.raises(LabellingConfigError):
        sync(studio, store)


def test_a_label_studio_that_is_away_is_said_after_some_tries(
    store: CorrectionStore, studio: ManyTasks
) -> None:
    def away(request: httpx.Request) -> None:
        raise httpx.ConnectError("refused")

    studio.before = away
    pauses: list[float] = []
    with pytest.raises(LabelStudioUnreachableError):
        sync(studio, store, patience=Patience(sleep=pauses.append))
    assert pauses == sorted(pauses)
    assert len(pauses) > 2
