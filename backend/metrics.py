"""What the backend counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

PATHS: Final = frozenset(
    {"/", "/health", "/ready", "/setup", "/predict", "/versions", "/webhook", "/metrics"}
)
"""Paths counted under their name; others are counted as `other`."""

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 85, 120)


class Metrics:
    """Counters of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.http = Counter(
            "segzero_http_requests",
            "Calls to the backend.",
            ["path", "status"],
            registry=self.registry,
        )
        self.tasks = Counter(
            "segzero_predict_tasks",
            "Tasks of /predict by how they ended: ok, failed or late.",
            ["outcome"],
            registry=self.registry,
        )
        self.predict_seconds = Histogram(
            "segzero_predict_seconds",
            "Seconds that a call to /predict took.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.model_seconds = Histogram(
            "segzero_model_seconds",
            "Seconds that the model took for one batch.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.versions = Counter(
            "segzero_model_versions",
            "Model versions of projects that were to serve: served, or refused as damaged.",
            ["outcome"],
            registry=self.registry,
        )
        self.webhooks = Counter(
            "segzero_webhook_events",
            "Events received from Label Studio.",
            ["action"],
            registry=self.registry,
        )
        self.webhooks_refused = Counter(
            "segzero_webhooks_refused",
            "Events that could not be kept: the spool is full, or its disk fails.",
            ["reason"],
            registry=self.registry,
        )
        self.events_unreadable = Counter(
            "segzero_events_unreadable",
            "Events in the spool that could not be read and were left out.",
            registry=self.registry,
        )
        self._spool_full = Gauge(
            "segzero_spool_full",
            "1 when the last event was refused for want of room.",
            registry=self.registry,
        )
        self._ready = Gauge(
            "segzero_model_ready", "1 when the model is loaded and working.", registry=self.registry
        )
        self._waiting = Gauge(
            "segzero_queue_requests",
            "Requests that wait for the model or are with it.",
            registry=self.registry,
        )

    def watch(self, ready: Callable[[], bool], waiting: Callable[[], int]) -> None:
        """Read the gauges from where their values live, whenever they are asked for."""
        self._ready.set_function(lambda: float(ready()))
        self._waiting.set_function(lambda: float(waiting()))

    def watch_spool(self, is_full: Callable[[], bool]) -> None:
        """Read whether the spool is full whenever that is asked for."""
        self._spool_full.set_function(lambda: float(is_full()))

    def count_webhook(self, action: str, *, is_known: bool) -> None:
        """Count one event; unknown names share a counter, so that callers cannot make more."""
        self.webhooks.labels(action=action if is_known else "other").inc()

    def render(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)


class CountCalls:
    """ASGI middleware that counts calls by path and status.

    Args:
        app: What it wraps.
        metrics: Where calls are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on, and count it when its status is known.

        An unexpected error passes through; what answers it with 500 lies further out.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"
        has_status = False

        async def counted(message: Message) -> None:
            nonlocal has_status
            if message["type"] == "http.response.start":
                has_status = True
                self._metrics.http.labels(path=path, status=str(message["status"])).inc()
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:
            if not has_status:
                self._metrics.http.labels(path=path, status="500").inc()
            raise
