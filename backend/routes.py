"""The endpoints of the wire protocol."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pydantic_core
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from backend.access import bounded_body
from backend.labelling import is_unset, parse_config
from backend.metrics import CONTENT_TYPE
from backend.model_thread import ModelState
from backend.protocol import AnyBody, PredictBody, SetupBody, receive
from backend.services import Services
from segzero_ml.errors import LabellingConfigError

router = APIRouter()
_log = logging.getLogger(__name__)


@router.get("/")
@router.get("/health")
async def health(request: Request) -> Response:
    """Whether the server lives; it does, whatever the model does. Open to everybody."""
    model = _services(request).model
    return JSONResponse({"status": "UP", "model_class": "SegZero", "model": model.state})


@router.get("/ready")
async def ready(request: Request) -> Response:
    """Whether predictions can be asked for. Open to everybody."""
    services = _services(request)
    state: str = services.model.state
    if services.predictor.is_draining:
        state = "draining"
    reply: dict[str, Any] = {"status": state, "model_version": services.model.model_version}
    if state == ModelState.READY:
        return JSONResponse(reply)
    if services.model.problem is not None:
        reply["detail"] = str(services.model.problem)
    return JSONResponse(reply, 503, {"Retry-After": "10"})


@router.post("/setup")
async def setup(request: Request) -> Response:
    """Tell Label Studio the project's version; refuse a labelling config that cannot be served.

    The host name and the token in the body are not read: anybody could send them.
    """
    services = _services(request)
    services.guard.check_login(request)
    body = await _read(request, SetupBody)
    if not is_unset(body.schema_):
        try:
            parse_config(body.schema_)
        except LabellingConfigError as error:
            _log.error("setup.config_unusable", extra={"fields": {"reason": str(error)}})
            raise
    return JSONResponse({"model_version": services.predictor.version_of(body.project)})


@router.post("/predict")
async def predict(request: Request) -> Response:
    """Answer tasks: as many results as there are tasks."""
    services = _services(request)
    services.guard.check_login(request)
    body = await _read(request, PredictBody)
    answer = await services.predictor.predict(body)
    reply = {
        "results": answer.results,
        "model_version": answer.model_version,
        "problems": answer.problems,  # Label Studio does not read these; batch workers do
    }
    # The lists of bytes in the masks are long; this writes them far faster than json does.
    return Response(pydantic_core.to_json(reply), media_type="application/json")


@router.get("/versions")
async def versions(request: Request) -> Response:
    """The versions that can answer, the base first; none while the model loads."""
    services = _services(request)
    services.guard.check_login(request)
    return JSONResponse({"versions": services.champions.versions()})


@router.post("/webhook")
async def webhook(request: Request) -> Response:
    """Keep an event of Label Studio: when this answers 200, it is on the disk."""
    services = _services(request)
    services.guard.check_webhook(request)
    body = await bounded_body(request, services.settings.max_body_bytes)
    event = await services.intake.take(body)
    return JSONResponse({"status": "ignored" if event.changes is None else "accepted"})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """What was counted, for Prometheus."""
    services = _services(request)
    services.guard.check_login(request)
    # In a thread: it asks Redis, which may take a moment to be away.
    return Response(await asyncio.to_thread(services.metrics.render), media_type=CONTENT_TYPE)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _read(request: Request, model: type[AnyBody]) -> AnyBody:
    limit = _services(request).settings.max_body_bytes
    return await receive(model, await bounded_body(request, limit))
