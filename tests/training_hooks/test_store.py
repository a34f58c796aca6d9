"""One event at a time: what the store says it did, and what is in it afterwards."""

from __future__ import annotations

import json
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from redis import Redis
from scipy import ndimage

from segzero_ml import masks
from segzero_ml.corrections import Revision, Verdict
from segzero_ml.errors import InputError, StoreError
from segzero_ml.types import ImageSize
from tests.training_hooks.store_samples import (
    MORNING,
    PROJECT,
    correction,
    everything,
    key,
    revision,
    with_segments,
)
from training_hooks.redis_client import connect
from training_hooks.store import CorrectionStore
from training_hooks.store_reader import text
from training_hooks.store_values import (
    LARGEST_CORRECTION,
    Known,
    Outcome,
    ProjectKey,
    pack,
    sortable,
    unpack,
)


@pytest.fixture
def store(redis_client: Redis) -> CorrectionStore:
    return CorrectionStore(redis_client)


def test_a_correction_comes_back_as_it_was_stored(store: CorrectionStore) -> None:
    given = correction(5, content="Ünïcödé ★", lead_time_s=12.25)
    assert store.upsert(given) is Outcome.CREATED
    assert store.get(key(5)) == given


def test_an_unknown_annotation_has_no_correction(store: CorrectionStore) -> None:
    assert store.get(key(99)) is None
    assert everything(store) == {}


def test_a_newer_revision_replaces_an_older_one(store: CorrectionStore) -> None:
    store.upsert(correction(second=1))
    assert store.upsert(correction(second=1.000001)) is Outcome.UPDATED
    assert everything(store) == {1: correction(second=1.000001)}


def test_an_older_revision_is_stale(store: CorrectionStore) -> None:
    store.upsert(correction(second=1.000001))
    assert store.upsert(correction(second=1)) is Outcome.STALE
    assert store.get(key()) == correction(second=1.000001)


def test_the_same_revision_again_changes_nothing(store: CorrectionStore) -> None:
    store.upsert(correction())
    before = store.mark(PROJECT)
    assert store.upsert(correction()) is Outcome.SAME
    assert store.mark(PROJECT) == before


def test_of_two_states_of_one_moment_the_same_wins_in_either_order(store: CorrectionStore) -> None:
    one, two = correction(content="one"), correction(content="two")
    newest = max(one, two, key=lambda each: each.revision)
    for annotation, order in ((1, (one, two)), (2, (two, one))):
        for each in order:
            store.upsert(correction(annotation, content=each.note_edited))
        found = store.get(key(annotation))
        assert found is not None
        assert found.revision == newest.revision


def test_moments_are_compared_across_time_zones(store: CorrectionStore) -> None:
    tokyo, earlier = timezone(timedelta(hours=9)), MORNING - timedelta(hours=1)
    local = Revision(earlier.astimezone(tokyo), revision().content_hash)
    assert store.upsert(correction()) is Outcome.CREATED
    assert store.withdraw(key(), local, 1) is Outcome.STALE


def test_revisions_sort_as_text_over_all_of_time() -> None:
    moments = [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        MORNING,
        MORNING + timedelta(microseconds=1),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-12))),
    ]
    texts = [sortable(Revision(moment, "0" * 64)) for moment in moments]
    assert texts == sorted(texts)
    assert len({len(text) for text in texts}) == 1


def test_a_deleted_annotation_is_gone(store: CorrectionStore) -> None:
    store.upsert(correction(1))
    store.upsert(correction(2))
    assert store.delete(key(1)) is True
    assert store.get(key(1)) is None
    assert list(everything(store)) == [2]
    assert store.delete(key(1)) is False


@pytest.mark.parametrize("second", [0, 1_000_000])
def test_a_late_event_does_not_bring_a_deleted_annotation_back(
    store: CorrectionStore, second: int
) -> None:
    store.upsert(correction(second=100))
    store.delete(key())
    assert store.upsert(correction(second=second)) is Outcome.DELETED
    assert store.withdraw(key(), revision(second), 1) is Outcome.DELETED
    assert everything(store) == {}


def test_a_deletion_may_come_before_the_creation(store: CorrectionStore) -> None:
    assert store.delete(key()) is False
    assert store.upsert(correction()) is Outcome.DELETED
    assert everything(store) == {}


def test_a_deleted_task_takes_its_annotations_along(store: CorrectionStore) -> None:
    store.upsert(correction(1, task=1))
    store.upsert(correction(2, task=1))
    store.upsert(correction(3, task=2))
    assert store.delete_task(PROJECT, 1) == 2
    assert list(everything(store)) == [3]
    assert store.delete_task(PROJECT, 1) == 0


def test_a_deleted_task_refuses_annotations_that_come_later(store: CorrectionStore) -> None:
    store.upsert(correction(1, task=1))
    store.delete_task(PROJECT, 1)
    assert store.upsert(correction(1, second=9, task=1)) is Outcome.DELETED
    assert store.upsert(correction(8, task=1)) is Outcome.DELETED
    assert store.upsert(correction(9, task=2)) is Outcome.CREATED


def test_projects_and_label_studios_are_kept_apart(store: CorrectionStore) -> None:
    others = [ProjectKey(PROJECT.label_studio, 8), ProjectKey("https://other", 7)]
    for project in (PROJECT, *others):
        store.upsert(correction(project=project, content=str(project.project)))
    store.delete(key())
    store.delete_task(others[0], 1)
    assert [len(everything(store, each)) for each in (PROJECT, *others)] == [0, 0, 1]
    assert set(store.projects()) == {PROJECT, *others}


def test_a_withdrawn_annotation_has_no_correction_until_it_has_truth_again(
    store: CorrectionStore,
) -> None:
    store.upsert(correction(second=1))
    assert store.withdraw(key(), revision(2), 1) is Outcome.UPDATED
    assert store.get(key()) is None
    assert everything(store) == {}
    assert store.statistics(PROJECT).withdrawn == 1
    assert store.upsert(correction(second=1)) is Outcome.STALE
    assert store.upsert(correction(second=3)) is Outcome.UPDATED
    assert everything(store) == {1: correction(second=3)}
    assert store.statistics(PROJECT).withdrawn == 0


def test_a_withdrawal_holds_against_an_older_event_that_comes_later(store: CorrectionStore) -> None:
    assert store.withdraw(key(), revision(2), 1) is Outcome.CREATED
    assert store.upsert(correction(second=1)) is Outcome.STALE
    assert store.withdraw(key(), revision(2), 1) is Outcome.SAME
    assert store.delete_task(PROJECT, 1) == 1
    assert store.statistics(PROJECT).withdrawn == 0


@pytest.mark.parametrize("first", ["upsert", "withdraw"])
def test_of_the_same_revision_with_and_without_truth_the_withdrawal_wins(
    store: CorrectionStore, first: str
) -> None:
    for step in sorted(["upsert", "withdraw"], reverse=first == "withdraw"):
        if step == "upsert":
            store.upsert(correction())
        else:
            store.withdraw(key(), revision(), 1)
    assert store.get(key()) is None


def test_a_list_disproves_a_deletion_that_came_before_it(store: CorrectionStore) -> None:
    store.delete(key(1))
    store.delete_task(PROJECT, 2)
    mark = store.mark(PROJECT)
    assert store.upsert(correction(1), listed_since=mark) is Outcome.CREATED
    assert store.upsert(correction(2, task=2), listed_since=mark) is Outcome.CREATED
    assert store.statistics(PROJECT).deleted == 0
    # From here on its events count again.
    assert store.upsert(correction(1, second=1)) is Outcome.UPDATED
    assert store.upsert(correction(3, task=2)) is Outcome.CREATED


def test_a_list_does_not_disprove_a_deletion_that_came_after_it(store: CorrectionStore) -> None:
    store.upsert(correction(1))
    mark = store.mark(PROJECT)
    store.delete(key(1))
    store.delete_task(PROJECT, 2)
    assert store.upsert(correction(1), listed_since=mark) is Outcome.DELETED
    assert store.upsert(correction(2, task=2), listed_since=mark) is Outcome.DELETED


def test_a_list_overrules_a_revision_from_the_future_that_came_before_it(
    store: CorrectionStore,
) -> None:
    """A forged or mistaken event with a far too late time must not block the truth for ever."""
    store.upsert(correction(second=1_000_000))
    mark = store.mark(PROJECT)
    assert store.upsert(correction(second=5)) is Outcome.STALE
    assert store.upsert(correction(second=5), listed_since=mark) is Outcome.UPDATED
    assert store.upsert(correction(second=4), listed_since=mark) is Outcome.STALE
    assert store.get(key()) == correction(second=5)


def test_absence_from_a_list_deletes_only_what_was_known_before_it(store: CorrectionStore) -> None:
    store.upsert(correction(1))
    store.upsert(correction(2))
    mark = store.mark(PROJECT)
    store.upsert(correction(2, second=5))
    store.upsert(correction(3))
    assert set(store.annotation_ids(PROJECT, mark)) == {1}
    assert [store.delete(key(each), known_until=mark) for each in (1, 2, 3, 4)] == [
        True,
        False,
        False,
        False,
    ]
    assert set(everything(store)) == {2, 3}
    assert store.upsert(correction(4)) is Outcome.CREATED


def test_ids_for_reconciling_include_the_withdrawn(store: CorrectionStore) -> None:
    store.upsert(correction(1))
    store.withdraw(key(2), revision(), 1)
    store.upsert(correction(3))
    store.delete(key(3))
    assert sorted(store.annotation_ids(PROJECT, store.mark(PROJECT))) == [1, 2]


def test_ids_as_large_as_a_database_has_them_stay_exact(store: CorrectionStore) -> None:
    large = [2**63 - 1, 2**63 - 2, 2**53 + 1, 2**53]
    for each in large:
        assert store.upsert(correction(each, task=each)) is Outcome.CREATED
    assert set(everything(store)) == set(large)
    assert store.delete_task(PROJECT, large[0]) == 1
    assert set(everything(store)) == set(large[1:])


def test_a_task_lists_the_corrections_of_all_who_annotated_it(store: CorrectionStore) -> None:
    for annotation, task in ((11, 1), (2, 1), (3, 2)):
        store.upsert(correction(annotation, task=task))
    store.withdraw(key(4), revision(), 1)
    assert [one.key.annotation for one in store.of_task(PROJECT, 1)] == [2, 11]


def test_the_most_recent_ones_go_by_the_clock_of_label_studio(store: CorrectionStore) -> None:
    for annotation, second in ((1, 30), (2, 10), (3, 20)):
        store.upsert(correction(annotation, second))
    assert [one.key.annotation for one in store.recent(PROJECT, 2)] == [1, 3]


def test_pages_can_be_of_one_verdict(store: CorrectionStore) -> None:
    for annotation, verdict in enumerate(Verdict, start=1):
        store.upsert(correction(annotation, verdict=verdict))
    page = store.page(PROJECT, verdict=Verdict.REJECTED)
    assert [one.verdict for one in page.corrections] == [Verdict.REJECTED]
    store.upsert(correction(page.corrections[0].key.annotation, 1, verdict=Verdict.ACCEPTED))
    assert store.page(PROJECT, verdict=Verdict.REJECTED).corrections == ()


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_of_an_unreasonable_size_is_refused(store: CorrectionStore, limit: int) -> None:
    with pytest.raises(InputError, match="1 to 1000"):
        store.page(PROJECT, limit=limit)


def test_asking_after_the_last_page_gives_what_has_changed_since(store: CorrectionStore) -> None:
    for annotation in (1, 2, 3):
        store.upsert(correction(annotation))
    after = store.page(PROJECT).after
    assert store.page(PROJECT, after).corrections == ()
    store.upsert(correction(2, second=5))
    store.upsert(correction(4))
    page = store.page(PROJECT, after)
    assert [one.key.annotation for one in page.corrections] == [2, 4]


def test_nothing_is_missed_by_paging_while_corrections_change(store: CorrectionStore) -> None:
    for annotation in range(1, 41):
        store.upsert(correction(annotation))
    seen, after, is_last, rounds = set(), 0, False, 0
    while not is_last:
        page = store.page(PROJECT, after, limit=10)
        seen |= {one.key.annotation for one in page.corrections}
        after, is_last, rounds = page.after, page.is_last, rounds + 1
        if rounds <= 5:
            store.upsert(correction(rounds, second=rounds))
            store.upsert(correction(40 - rounds, second=rounds))
    assert seen == set(range(1, 41))


def test_numbers_go_on_growing_when_the_sequence_was_lost(
    store: CorrectionStore, redis_client: Redis
) -> None:
    store.upsert(correction(1))
    after = store.page(PROJECT).after
    redis_client.flushdb()
    store.upsert(correction(2))
    assert [one.key.annotation for one in store.page(PROJECT, after).corrections] == [2]


def test_numbers_grow_although_the_clock_goes_back(
    store: CorrectionStore, redis_client: Redis
) -> None:
    store.upsert(correction(1))
    (sequence,) = redis_client.keys("*:sequence")
    tomorrow = store.mark(PROJECT) + 86_400_000_000
    redis_client.set(sequence, tomorrow)
    store.upsert(correction(2))
    store.upsert(correction(3))
    assert store.mark(PROJECT) == tomorrow + 2
    assert list(everything(store)) == [1, 2, 3]


def test_five_thousand_corrections_are_read_in_pages_of_bounded_size_and_memory(
    store: CorrectionStore,
) -> None:
    total, limit = 5000, 100
    for annotation in range(1, total + 1):
        store.upsert(correction(annotation, task=annotation))
    seen: list[int] = []
    peaks: list[int] = []
    after, is_last = store.page(PROJECT, limit=1).after - 1, False
    while not is_last:
        with _traced(peaks, when=len(seen) % 1000 == 0):
            page = store.page(PROJECT, after, limit)
        assert len(page.corrections) <= limit
        seen += [one.key.annotation for one in page.corrections]
        after, is_last = page.after, page.is_last
    assert seen == list(range(1, total + 1))
    # The memory of a page depends on neither where it is nor how many there are.
    assert len(peaks) == total // 1000 + 1
    assert max(peaks[:-1]) < 1.5 * min(peaks[:-1])
    assert len(set(store.annotation_ids(PROJECT, store.mark(PROJECT)))) == total


@contextmanager
def _traced(peaks: list[int], when: bool) -> Iterator[None]:
    """Adds the most memory that the block took at a time, in bytes."""
    if not when:
        yield
        return
    tracemalloc.start()
    try:
        yield
        peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def test_a_correction_of_a_four_megapixel_mask_takes_kilobytes(
    store: CorrectionStore, redis_client: Redis
) -> None:
    rng = np.random.default_rng(7)
    noise = ndimage.gaussian_filter(rng.random((2000, 2000)), 25)
    blobs, _ = ndimage.label(noise > np.quantile(noise, 0.8))  # ragged ones
    largest = np.argsort(np.bincount(blobs.ravel())[1:])[-8:] + 1
    rles = [masks.encode(blobs == number) for number in largest]
    given = with_segments(correction(), ImageSize(2000, 2000), rles)
    assert store.upsert(given) is Outcome.CREATED
    assert store.get(key()) == given
    (row,) = redis_client.keys("*:annotation:1")
    taken = redis_client.memory_usage(row, samples=0)
    assert taken is not None
    assert 1_000 < taken < 10_000


def test_a_damaged_correction_does_not_hide_the_others(
    store: CorrectionStore, redis_client: Redis
) -> None:
    for annotation in (1, 2, 3):
        store.upsert(correction(annotation))
    (row,) = redis_client.keys("*:annotation:2")
    redis_client.hset(row, "body", pack(correction(2))[:-5])
    page = store.page(PROJECT)
    assert [one.key.annotation for one in page.corrections] == [1, 3]
    assert page.unreadable == (2,)
    with pytest.raises(StoreError, match="cut off"):
        store.get(key(2))
    store.delete(key(2))
    mark = store.mark(PROJECT)
    assert store.upsert(correction(2), listed_since=mark) is Outcome.CREATED
    assert store.page(PROJECT).unreadable == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\0" * 100,
        pack(correction())[:40],
        zlib.compress(b"{"),
        zlib.compress(b'"\xff"'),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b'{"format": 2}'),
        zlib.compress(json.dumps({**correction().to_json(), "updated_at": 5}).encode()),
        zlib.compress(b" " * (LARGEST_CORRECTION + 1)),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_only_what_was_packed_can_be_unpacked(data: bytes) -> None:
    assert unpack(pack(correction())) == correction()
    with pytest.raises(StoreError):
        unpack(data)


def test_statistics_of_nothing_are_empty(store: CorrectionStore) -> None:
    found = store.statistics(PROJECT)
    assert found.corrections == 0
    assert set(found.verdicts) == set(Verdict)
    assert found.accept_rate is None
    assert found.mean_edit_iou is None
    assert found.median_lead_time_shown_s is None
    assert found.median_lead_time_alone_s is None


def test_statistics_say_what_predictions_are_worth(store: CorrectionStore) -> None:
    given = [
        correction(1, verdict=Verdict.ACCEPTED, edit_iou=1.0, lead_time_s=2),
        correction(2, verdict=Verdict.EDITED, edit_iou=0.6, lead_time_s=4),
        correction(3, verdict=Verdict.REJECTED, edit_iou=0.0, lead_time_s=9.5),
        correction(4, verdict=Verdict.NOTHING_HERE, edit_iou=0.0, lead_time_s=None),
        correction(5, verdict=Verdict.DRAWN_BY_HAND, lead_time_s=20),
        correction(6, verdict=Verdict.DRAWN_BY_HAND, lead_time_s=30.5),
    ]
    for one in given:
        store.upsert(one)
    store.upsert(correction(7))
    store.delete(key(7))
    found = store.statistics(PROJECT)
    assert found.corrections == 6
    assert found.verdicts[Verdict.DRAWN_BY_HAND] == 2
    assert found.deleted == 1
    assert found.accept_rate == pytest.approx(1 / 4)
    assert found.mean_edit_iou == pytest.approx(0.4)
    assert found.median_lead_time_shown_s == 4
    assert found.median_lead_time_alone_s == 25.25


def test_watermarks_are_kept_by_name_and_project(store: CorrectionStore) -> None:
    assert store.watermark(PROJECT, "reconciled") is None
    store.set_watermark(PROJECT, "reconciled", MORNING)
    assert store.watermark(PROJECT, "reconciled") == MORNING
    assert store.watermark(PROJECT, "read until") is None
    assert store.watermark(ProjectKey("other", 7), "reconciled") is None
    with pytest.raises(InputError, match="zone"):
        store.set_watermark(PROJECT, "reconciled", MORNING.replace(tzinfo=None))


def test_many_writers_at_once_end_with_the_newest_revision(store: CorrectionStore) -> None:
    events = [(annotation, second) for annotation in range(1, 6) for second in range(40)] * 2
    random.Random(3).shuffle(events)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda event: store.upsert(correction(*event)), events))
    assert everything(store) == {each: correction(each, 39) for each in range(1, 6)}


def test_a_server_that_forgot_the_scripts_is_given_them_again(
    store: CorrectionStore, redis_client: Redis
) -> None:
    store.upsert(correction(1))
    redis_client.script_flush()
    assert store.upsert(correction(2)) is Outcome.CREATED


def test_a_key_of_another_kind_is_reported_as_an_error_of_the_store(
    store: CorrectionStore, redis_client: Redis
) -> None:
    store.upsert(correction(1))
    (order,) = redis_client.keys("*:order")
    redis_client.set(order, "not a sorted set")
    with pytest.raises(StoreError, match="reading which corrections"):
        store.page(PROJECT)


def test_without_redis_every_call_is_an_error_of_the_store() -> None:
    store = CorrectionStore(connect("/nowhere/redis.sock", retries=0, timeout_s=0.5))
    for call in (
        lambda: store.upsert(correction()),
        lambda: store.get(key()),
        lambda: store.delete(key()),
        lambda: store.page(PROJECT),
        lambda: store.statistics(PROJECT),
        lambda: list(store.annotation_ids(PROJECT, 0)),
    ):
        with pytest.raises(StoreError, match="does not answer"):
            call()


def test_what_is_deleted_leaves_nothing_but_its_tombstones(
    store: CorrectionStore, redis_client: Redis
) -> None:
    for annotation, verdict in enumerate(Verdict, start=1):
        store.upsert(correction(annotation, task=annotation, verdict=verdict))
    store.withdraw(key(1), revision(1), 1)
    for annotation in range(1, len(Verdict) + 1):
        store.delete(key(annotation))
    names = [text(name) for name in redis_client.keys("*")]
    left = {name.rpartition(":")[2]: name for name in names}
    assert left.keys() == {"projects", "sequence", "deleted", "sums"}
    assert set(redis_client.hvals(left["sums"])) == {b"0"}
    assert redis_client.zcard(left["deleted"]) == len(Verdict)


def test_a_list_brings_back_a_task_but_only_those_of_its_annotations_that_it_holds(
    store: CorrectionStore,
) -> None:
    store.upsert(correction(1, task=1))
    store.upsert(correction(2, task=1))
    store.delete_task(PROJECT, 1)
    mark = store.mark(PROJECT)
    assert store.upsert(correction(1, task=1), listed_since=mark) is Outcome.CREATED
    assert store.upsert(correction(2, task=1)) is Outcome.DELETED


def test_what_is_known_of_an_annotation_is_its_revision_and_whether_it_holds_truth(
    store: CorrectionStore,
) -> None:
    store.upsert(correction(1, 5, "a"))
    store.withdraw(key(2), revision(6, "b"), task=1)
    store.upsert(correction(3, 7, "c"))
    store.delete(key(3))
    assert store.known(PROJECT, [1, 2, 3, 4]) == {
        1: Known(revision(5, "a"), has_truth=True),
        2: Known(revision(6, "b"), has_truth=False),
    }
    assert store.known(PROJECT, []) == {}


def test_a_revision_that_cannot_be_read_is_an_error(
    store: CorrectionStore, redis_client: Redis
) -> None:
    store.upsert(correction(1))
    [row] = redis_client.keys("*:annotation:1")
    for damaged in ("", "12:", "x" * 18 + ":" + "0" * 64, "9" * 40 + ":" + "0" * 64):
        redis_client.hset(row, "revision", damaged or "-")
        with pytest.raises(StoreError, match="revision cannot be read"):
            store.known(PROJECT, [1])


def test_pages_can_be_read_from_the_newest_to_the_oldest(store: CorrectionStore) -> None:
    for annotation in range(1, 8):
        verdict = Verdict.ACCEPTED if annotation % 2 else Verdict.EDITED
        store.upsert(correction(annotation, verdict=verdict))
    store.upsert(correction(3, second=9, verdict=Verdict.ACCEPTED))
    seen: list[int] = []
    after, is_last = 0, False
    while not is_last:
        page = store.page(PROJECT, after, 3, newest_first=True)
        seen += [one.key.annotation for one in page.corrections]
        after, is_last = page.after, page.is_last
    assert seen == [3, 7, 6, 5, 4, 2, 1]
    accepted = store.page(PROJECT, verdict=Verdict.ACCEPTED, newest_first=True)
    assert [one.key.annotation for one in accepted.corrections] == [3, 7, 5, 1]


def test_a_damaged_correction_does_not_hide_the_other_recent_ones(
    store: CorrectionStore, redis_client: Redis
) -> None:
    for annotation in (1, 2, 3):
        store.upsert(correction(annotation, annotation))
    (row,) = redis_client.keys("*:annotation:2")
    redis_client.hset(row, "body", b"damaged")
    assert [one.key.annotation for one in store.recent(PROJECT)] == [3, 1]
