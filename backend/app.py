"""The server that Label Studio talks to: the wire protocol on FastAPI.

`create_app` builds it from settings. Nothing is loaded or connected before the app starts;
from then on one thread loads the model and works, while the app goes on answering.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from backend.access import Guard
from backend.addresses import Resolver
from backend.champions import Champions
from backend.connect.follow import VersionFollower
from backend.errors import BodyError, CannotTrainError, UnavailableError
from backend.fetch import ImageFetcher
from backend.image_cache import CachedFetcher
from backend.intake.receiver import Intake
from backend.learning.trigger import Triggers
from backend.logs import adopt_library_logs
from backend.metrics import CountCalls, Metrics
from backend.model_folders import registries
from backend.model_thread import ModelThread, Predicts
from backend.preannotate.refresh import enqueue_refresh
from backend.predictor import Predictor
from backend.reconcile.schedule import Schedule
from backend.report_metrics import ReportCollector
from backend.routes import router
from backend.services import Services
from backend.settings import Settings
from segzero_ml.errors import LabellingConfigError, SegZeroError, SpoolError, SpoolFullError
from segzero_ml.presets import get_preset


def create_app(
    settings: Settings,
    *,
    load_pipeline: Callable[[], Predicts] | None = None,
    expect_version: Callable[[], str | None] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    resolver: Resolver | None = None,
) -> FastAPI:
    """The app, not started yet.

    Args:
        settings: All it needs to know.
        load_pipeline: Gives the pipeline; the preset of the settings by default.
        expect_version: Gives that pipeline's version before it is loaded, if it can be known.
        transport: Where images are fetched from instead of the network.
        resolver: Looks up the hosts of images; None for the system's.

    Raises:
        ConfigError: The preset is unknown or the Label Studio token is malformed.
    """
    preset = get_preset(settings.preset)

    def load() -> Predicts:
        # torch takes seconds to import: in the thread that loads, so that /health answers.
        import segzero_ml.reasoner.local  # noqa: F401 - for the log handlers it brings
        from segzero_ml.pipeline import Pipeline

        adopt_library_logs()
        return Pipeline.load(preset.name)

    def expect() -> str | None:
        from backend.known_version import version_ahead

        return version_ahead(preset)

    metrics = Metrics()
    champions = Champions(
        lambda: registries(settings),
        on_change=lambda outcome: metrics.versions.labels(outcome=outcome).inc(),
    )
    model = ModelThread(
        load_pipeline or load,
        settings.batch_size,
        on_batch=metrics.model_seconds.observe,
        expect=expect_version or (expect if load_pipeline is None else lambda: None),
        on_load=champions.begin,
        between=champions.refresh,
    )
    plain = ImageFetcher(settings, transport=transport, resolver=resolver)
    fetcher = CachedFetcher(plain, settings)
    predictor = Predictor(model, champions, fetcher, settings, metrics)
    intake = Intake(settings, metrics)
    metrics.registry.register(ReportCollector(settings, intake.survey))
    metrics.watch(ready=lambda: model.is_ready, waiting=lambda: model.waiting)
    services = Services(
        settings,
        Guard(settings),
        metrics,
        model,
        champions,
        predictor,
        fetcher,
        intake,
        Schedule(settings),
        Triggers(settings),
        VersionFollower(
            settings,
            lambda: registries(settings),
            lambda project: champions.version(project, None),
            lambda project, version: enqueue_refresh(settings, project, version),
        ),
    )

    app = FastAPI(
        title="SegZero for Label Studio",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.services = services
    app.include_router(router)
    app.add_middleware(CountCalls, metrics=metrics)
    _add_error_replies(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    services.intake.start()
    services.schedule.start()
    services.triggers.start()
    services.follower.start()
    services.model.start()
    try:
        yield
    finally:
        services.predictor.begin_drain()
        await asyncio.to_thread(services.schedule.stop)
        await asyncio.to_thread(services.triggers.stop)
        await asyncio.to_thread(services.follower.stop)
        await asyncio.to_thread(services.intake.stop)
        await services.predictor.late.aclose(services.predictor.drain_left_s / 2)
        await asyncio.to_thread(services.model.stop, services.predictor.drain_left_s)
        await services.fetcher.aclose()


def _add_error_replies(app: FastAPI) -> None:
    """Give every error a JSON reply that says what is wrong, and nothing of the inside."""

    @app.exception_handler(SegZeroError)
    async def known(_: Request, error: SegZeroError) -> Response:
        status, headers = 500, {}
        if isinstance(error, BodyError):
            status = 400
        elif isinstance(error, LabellingConfigError):
            status = 422
        elif isinstance(error, UnavailableError):
            status, headers = 503, {"Retry-After": str(error.retry_after_s)}
        elif isinstance(error, CannotTrainError):
            status = 501
        elif isinstance(error, SpoolFullError):
            status = 507
        elif isinstance(error, SpoolError):
            status, headers = 503, {"Retry-After": "5"}
        return JSONResponse({"detail": str(error)}, status, headers)

    @app.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> Response:
        # Starlette logs the traceback after this reply.
        return JSONResponse({"detail": "Internal error; the backend's log has it."}, 500)
