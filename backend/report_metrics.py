"""The report's numbers for Prometheus, read when they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend.redis_access import open_redis
from backend.report import Numbers, ProjectView, SpoolView, count, look_at_spool
from backend.settings import Settings
from segzero_ml.errors import ConfigError, StoreError
from training_hooks.spool import SpoolSurvey

_log = logging.getLogger(__name__)

_PROJECT = ("label_studio", "project")


class ReportCollector(Collector):
    """Queues, corrections and spool as gauges.

    Redis is given a second per question and two in all; when it is away, `segzero_redis_up`
    is 0 and what only it knows is absent. Blocks meanwhile: not for an event loop.

    Args:
        settings: Where everything is.
        spool: Looks at the spool, in the process that has it open; None reads its files.
        limit_s: Seconds for all questions to Redis.
    """

    def __init__(
        self,
        settings: Settings,
        spool: Callable[[], SpoolSurvey] | None = None,
        limit_s: float = 2.0,
    ) -> None:
        self._settings = settings
        self._look = spool
        self._limit_s = limit_s

    def describe(self) -> list[Metric]:
        """Nothing: so that registering asks nobody anything."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Look now."""
        yield from _spool(look_at_spool(self._settings, self._look))
        numbers = self._numbers()
        yield _gauge("segzero_redis_up", "1 when Redis answers.", float(numbers is not None))
        if numbers is not None:
            yield from _queues(numbers)
            yield from _projects(numbers.projects)

    def _numbers(self) -> Numbers | None:
        try:
            with open_redis(
                self._settings, "segzero-metrics", timeout_s=self._limit_s / 2, retries=0
            ) as client:
                return count(client, limit_s=self._limit_s)
        except (ConfigError, StoreError) as error:
            _log.debug("No numbers from Redis: %s", error)
            return None


def _spool(view: SpoolView) -> Iterator[Metric]:
    yield _gauge(
        "segzero_spool_alarm",
        "1 when the spool is nearly full, too old, or cannot be read.",
        float(bool(view.alarm)),
    )
    yield _gauge("segzero_spool_capacity_bytes", "Room of the spool.", view.capacity_bytes)
    if view.survey is None:
        return
    found = view.survey
    yield _gauge("segzero_spool_records", "Webhooks not handed over yet.", found.depth)
    yield _gauge("segzero_spool_bytes", "Size of the spool on disk.", found.bytes)
    yield _gauge(
        "segzero_spool_oldest_age_seconds",
        "How long the oldest webhook has waited; 0 without any.",
        found.oldest_age_s or 0.0,
    )
    yield _gauge("segzero_spool_quarantined", "Damaged places found, ever.", found.quarantined)


def _queues(numbers: Numbers) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("segzero_jobs", "Jobs by queue and state.", labels=("queue", "state"))
    workers = GaugeMetricFamily("segzero_workers", "Workers by queue.", labels=("queue",))
    for name, depth in numbers.queues.items():
        for state in ("waiting", "running", "scheduled", "dead"):
            jobs.add_metric((name.value, state), getattr(depth, state))
        workers.add_metric((name.value,), depth.workers)
    yield jobs
    yield workers


def _projects(projects: Sequence[ProjectView]) -> Iterator[Metric]:
    by_verdict = GaugeMetricFamily(
        "segzero_corrections", "Corrections by verdict.", labels=(*_PROJECT, "verdict")
    )
    lead = GaugeMetricFamily(
        "segzero_lead_time_median_seconds",
        "Median time for an annotation that began with a prediction (shown) or not (alone).",
        labels=(*_PROJECT, "prediction"),
    )
    plain = {
        name: GaugeMetricFamily(f"segzero_{name}", text, labels=_PROJECT)
        for name, text in (
            ("annotations_withdrawn", "Annotations that hold no truth at present."),
            ("accept_ratio", "Accepted ones among those made with a prediction in view."),
            ("edit_iou_mean", "Mean overlap of predictions with what became of them."),
            ("last_reconcile_timestamp_seconds", "Last comparison with Label Studio."),
        )
    }
    for view in projects:
        name, found = (view.key.label_studio, str(view.key.project)), view.statistics
        for verdict, number in found.verdicts.items():
            by_verdict.add_metric((*name, verdict.value), number)
        for kind, seconds in (
            ("shown", found.median_lead_time_shown_s),
            ("alone", found.median_lead_time_alone_s),
        ):
            if seconds is not None:
                lead.add_metric((*name, kind), seconds)
        at = view.reconciled_at
        for metric, value in (
            ("annotations_withdrawn", found.withdrawn),
            ("accept_ratio", found.accept_rate),
            ("edit_iou_mean", found.mean_edit_iou),
            ("last_reconcile_timestamp_seconds", None if at is None else at.timestamp()),
        ):
            if value is not None:
                plain[metric].add_metric(name, value)
    yield by_verdict
    yield lead
    yield from plain.values()
    yield from _rounds(projects)


def _rounds(projects: Sequence[ProjectView]) -> Iterator[Metric]:
    """The newest round of each project."""
    phase = GaugeMetricFamily(
        "segzero_round", "1 for where a project's newest round is.", labels=(*_PROJECT, "phase")
    )
    plain = {
        name: GaugeMetricFamily(f"segzero_round_{name}", text, labels=_PROJECT)
        for name, text in (
            ("step", "Steps that it made."),
            ("steps", "Steps that it has in all."),
            ("seconds", "How long it took."),
            ("peak_memory_bytes", "Most memory that it took."),
            ("held_out_iou", "Mean mask IoU of its best model on held-out requests."),
            ("champion_iou", "The same of the version that served when it began."),
        )
    }
    for view in projects:
        name, state = (view.key.label_studio, str(view.key.project)), view.round
        if state is None:
            continue
        phase.add_metric((*name, state.phase.value), 1.0)
        for metric, family in plain.items():
            value = getattr(state, metric)
            if value is not None:
                family.add_metric(name, value)
    yield phase
    yield from plain.values()


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
