"""The gauges of `/metrics`: the report's numbers, and what is left of them without Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from backend.app import create_app
from backend.redis_access import spool_folder
from backend.report_metrics import ReportCollector
from backend.settings import Settings, load_settings
from segzero_ml.corrections import Verdict
from tests.backend.corrected import PROJECT, World, world
from tests.training_hooks.store_samples import MORNING, correction
from training_hooks.spool import Spool

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def here(_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    return _world.use(monkeypatch)


def scrape(settings: Settings) -> Samples:
    registry = CollectorRegistry()
    registry.register(ReportCollector(settings))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_redis_the_store_and_the_spool_are_measured(here: World) -> None:
    for number, verdict in enumerate((Verdict.ACCEPTED, Verdict.EDITED, Verdict.EDITED), start=1):
        here.store.upsert(
            correction(number, verdict=verdict, edit_iou=0.5, lead_time_s=8.0, project=PROJECT)
        )
    here.store.set_watermark(PROJECT, "reconcile", MORNING)
    here.make_dead_letters("one-1")
    with Spool(spool_folder(here.settings)) as spool:
        spool.append(b"an event")
        found = scrape(here.settings)
    of = (("label_studio", "label-studio"), ("project", "7"))
    assert found["segzero_redis_up", ()] == 1
    assert found["segzero_corrections", (*of, ("verdict", "edited"))] == 2
    assert found["segzero_corrections", (*of, ("verdict", "rejected"))] == 0
    assert found["segzero_accept_ratio", of] == pytest.approx(1 / 3)
    assert found["segzero_edit_iou_mean", of] == pytest.approx(0.5)
    shown = (of[0], ("prediction", "shown"), of[1])
    assert found["segzero_lead_time_median_seconds", shown] == 8.0
    assert (
        "segzero_lead_time_median_seconds",
        (of[0], ("prediction", "alone"), of[1]),
    ) not in found
    assert found["segzero_last_reconcile_timestamp_seconds", of] == MORNING.timestamp()
    assert found["segzero_jobs", (("queue", "predict"), ("state", "dead"))] == 1
    assert found["segzero_workers", (("queue", "ingest"),)] == 0
    assert found["segzero_spool_records", ()] == 1
    assert found["segzero_spool_alarm", ()] == 0


def test_without_redis_only_the_spool_is_left(tmp_path: Path) -> None:
    found = scrape(load_settings(data_dir=tmp_path))
    assert found["segzero_redis_up", ()] == 0
    assert found["segzero_spool_records", ()] == 0
    assert {name for name, _ in found} <= {
        "segzero_redis_up",
        "segzero_spool_alarm",
        "segzero_spool_bytes",
        "segzero_spool_capacity_bytes",
        "segzero_spool_oldest_age_seconds",
        "segzero_spool_quarantined",
        "segzero_spool_records",
    }


def test_a_redis_that_does_not_answer_holds_nobody_up(tmp_path: Path) -> None:
    """An address of a network kept for documentation: packets to it are lost."""
    settings = load_settings(data_dir=tmp_path, redis_url="redis://:sesame@192.0.2.1:6379/0")
    started = time.monotonic()
    found = scrape(settings)
    assert time.monotonic() - started < 5
    assert found["segzero_redis_up", ()] == 0
    registry = CollectorRegistry()
    registry.register(ReportCollector(settings))
    assert b"sesame" not in generate_latest(registry)


def test_the_backend_gives_them_with_its_own(here: World) -> None:
    """The app is not started: asking for its numbers needs neither model nor spool."""
    here.store.upsert(correction(1, project=PROJECT))
    text = create_app(here.settings).state.services.metrics.render().decode()
    assert "segzero_redis_up 1.0" in text
    assert 'segzero_corrections{label_studio="label-studio",project="7",verdict="edited"} 1' in text
    assert "\nsegzero_spool_records " in text
    assert "segzero_model_ready" in text
