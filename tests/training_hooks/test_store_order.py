"""Whatever the order of the events: the store ends up as Label Studio is."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from statistics import fmean, median

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from segzero_ml.corrections import Correction, Revision, Verdict
from tests.training_hooks.store_samples import PROJECT, correction, everything, key, revision
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.store import CorrectionStore
from training_hooks.store_values import Statistics, prediction_was_shown, sortable

ANNOTATIONS = range(1, 5)
TASKS = range(1, 4)


def task_of(annotation: int) -> int:
    return annotation % len(TASKS) + 1


@dataclass(frozen=True)
class Saved:
    """An annotation was saved in some state; `truth` is false for a skipped one."""

    annotation: int
    second: int
    content: str
    truth: bool

    @property
    def correction(self) -> Correction:
        """All of it follows from what the event says."""
        chosen = random.Random(repr(self))
        return correction(
            self.annotation,
            self.second,
            self.content,
            task=task_of(self.annotation),
            verdict=chosen.choice(list(Verdict)),
            edit_iou=chosen.choice([None, 0.0, 0.25, 1 / 3, 1.0]),
            lead_time_s=chosen.choice([None, 0.0, 1e-7, 12.5, 1e6]),
        )

    @property
    def order(self) -> tuple[Revision, bool]:
        return (revision(self.second, self.content), not self.truth)


@dataclass(frozen=True)
class Deleted:
    """An annotation was deleted."""

    annotation: int


@dataclass(frozen=True)
class TaskDeleted:
    """A task was deleted with all its annotations."""

    task: int


Event = Saved | Deleted | TaskDeleted

saved = st.builds(
    Saved,
    st.sampled_from(ANNOTATIONS),
    st.integers(0, 2),
    st.sampled_from("ab"),
    st.sampled_from([True, True, True, False]),
)
events = st.lists(
    st.one_of(
        saved,
        saved,
        saved,
        st.builds(Deleted, st.sampled_from(ANNOTATIONS)),
        st.builds(TaskDeleted, st.sampled_from(TASKS)),
    ),
    max_size=30,
)


def deliver(store: CorrectionStore, event: Event, mark: int | None = None) -> None:
    match event:
        case Saved(truth=True):
            store.upsert(event.correction, listed_since=mark)
        case Saved(annotation, second, content):
            task = task_of(annotation)
            store.withdraw(key(annotation), revision(second, content), task, listed_since=mark)
        case Deleted(annotation):
            store.delete(key(annotation))
        case TaskDeleted(task):
            store.delete_task(PROJECT, task)


def model(delivered: list[Event]) -> dict[int, Correction]:
    """What must be in the store, whatever the order."""
    gone = {event.annotation for event in delivered if isinstance(event, Deleted)}
    tasks = {event.task for event in delivered if isinstance(event, TaskDeleted)}
    newest: dict[int, Saved] = {}
    for event in delivered:
        if not isinstance(event, Saved):
            continue
        if event.annotation in gone or task_of(event.annotation) in tasks:
            continue
        known = newest.get(event.annotation)
        if known is None or event.order > known.order:
            newest[event.annotation] = event
    return {each: event.correction for each, event in newest.items() if event.truth}


def statistics_of(corrections: list[Correction]) -> dict[str, object]:
    """The same numbers, worked out from the corrections themselves."""
    shown = [one for one in corrections if prediction_was_shown(one)]
    alone = [one for one in corrections if not prediction_was_shown(one)]
    ious = [one.edit_iou for one in corrections if one.edit_iou is not None]
    accepted = sum(one.verdict is Verdict.ACCEPTED for one in corrections)

    def middle(some: list[Correction]) -> float | None:
        times = [one.lead_time_s for one in some if one.lead_time_s is not None]
        return median(times) if times else None

    return {
        "verdicts": {each: sum(one.verdict is each for one in corrections) for each in Verdict},
        "accept_rate": accepted / len(shown) if shown else None,
        "mean_edit_iou": pytest.approx(fmean(ious), abs=1e-6) if ious else None,
        "median_lead_time_shown_s": middle(shown),
        "median_lead_time_alone_s": middle(alone),
    }


def check_statistics(found: Statistics, corrections: list[Correction]) -> None:
    for name, value in statistics_of(corrections).items():
        assert getattr(found, name) == value, name


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(events, st.randoms(use_true_random=False))
def test_every_order_of_the_same_events_ends_the_same(
    redis_client: Redis, delivered: list[Event], shuffler: random.Random
) -> None:
    store = CorrectionStore(redis_client)
    for _ in range(2):
        redis_client.flushdb()
        again = delivered + [event for event in delivered if shuffler.random() < 0.4]
        shuffler.shuffle(again)
        for event in again:
            deliver(store, event)
        found = everything(store, limit=3)
        assert found == model(delivered)
        check_statistics(store.statistics(PROJECT), list(found.values()))
        for task in TASKS:
            expected = sorted(each for each in found if task_of(each) == task)
            assert [one.key.annotation for one in store.of_task(PROJECT, task)] == expected


@given(st.lists(saved, min_size=2, max_size=2))
def test_the_text_of_a_revision_sorts_as_the_revision(pair: list[Saved]) -> None:
    one, two = (event.order[0] for event in pair)
    assert (sortable(one) < sortable(two)) == (one < two)


class LossyLabelStudio(RuleBasedStateMachine):
    """Label Studio sends events that get lost, doubled, late; reconciling mends it all.

    The bounds of a reconcile are as in life: a mark, then the list, and in between and
    afterwards events go on arriving.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__()
        self.client = connect(server.url)
        self.client.flushdb()
        self.store = CorrectionStore(self.client)
        self.studio: dict[int, Saved] = {}
        self.used: set[int] = set()
        self.clock = 0
        self.under_way: list[Event] = []
        self.mark: int | None = None
        self.listed: dict[int, Saved] = {}

    def teardown(self) -> None:
        self.client.close()

    def emit(self, event: Event) -> None:
        self.under_way.append(event)

    @rule(annotation=st.integers(1, 12), content=st.sampled_from("ab"), truth=st.booleans())
    def save(self, annotation: int, content: str, truth: bool) -> None:
        if annotation in self.used and annotation not in self.studio:
            return  # ids are never used again
        self.clock += 1
        self.used.add(annotation)
        self.studio[annotation] = Saved(annotation, self.clock, content, truth)
        self.emit(self.studio[annotation])

    @precondition(lambda self: self.studio)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        annotation = data.draw(st.sampled_from(sorted(self.studio)))
        del self.studio[annotation]
        self.emit(Deleted(annotation))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), keep=st.booleans())
    def arrive(self, data: st.DataObject, keep: bool) -> None:
        index = data.draw(st.integers(0, len(self.under_way) - 1))
        deliver(self.store, self.under_way[index])
        if not keep:
            self.under_way.pop(index)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def get_lost(self, data: st.DataObject) -> None:
        self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))

    @rule(annotation=st.integers(1, 12))
    def mistaken_deletion(self, annotation: int) -> None:
        self.store.delete(key(annotation))

    @rule(annotation=st.integers(1, 12))
    def forged_future(self, annotation: int) -> None:
        deliver(self.store, Saved(annotation, 10**6, "forged", truth=True))

    @rule()
    def ask_for_the_list(self) -> None:
        self.mark = self.store.mark(PROJECT)
        self.listed = dict(self.studio)

    @precondition(lambda self: self.mark is not None)
    @rule()
    def apply_the_list(self) -> None:
        assert self.mark is not None
        for event in self.listed.values():
            deliver(self.store, event, self.mark)
        for annotation in list(self.store.annotation_ids(PROJECT, self.mark)):
            if annotation not in self.listed:
                self.store.delete(key(annotation), known_until=self.mark)
        self.mark = None

    @rule()
    def reconcile_in_peace(self) -> None:
        self.ask_for_the_list()
        self.apply_the_list()
        truth = {each: event for each, event in self.studio.items() if event.truth}
        assert everything(self.store) == {each: truth[each].correction for each in truth}
        skipped = len(self.studio) - len(truth)
        assert self.store.statistics(PROJECT).withdrawn == skipped

    @invariant()
    def the_numbers_are_those_of_the_corrections(self) -> None:
        check_statistics(self.store.statistics(PROJECT), list(everything(self.store).values()))


def test_reconciling_makes_the_store_equal_to_label_studio(redis_server: EmbeddedServer) -> None:
    run_state_machine_as_test(
        lambda: LossyLabelStudio(redis_server),  # type: ignore[arg-type]
        settings=settings(max_examples=40, stateful_step_count=30, deadline=None),
    )


def test_the_model_of_these_tests_knows_what_newer_means() -> None:
    older = Saved(1, 1, "a", truth=True)
    assert model([older, replace(older, second=2)])[1].revision == revision(2, "a")
    assert model([older, replace(older, truth=False)]) == {}
    assert model([older, TaskDeleted(task_of(1))]) == {}
