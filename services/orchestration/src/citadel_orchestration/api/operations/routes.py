"""Routes for operators: queues, workers, health, history; probes, metrics and the documentation page."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from citadel_common.errors import NotFound, StoreUnavailable
from citadel_common.history import KINDS, Kind
from citadel_common.telemetry import Metrics
from citadel_contracts.api import HealthResponse, HistoryResponse, QueuesResponse, WorkersResponse
from citadel_orchestration.api.http.bodies import json_response
from citadel_orchestration.api.http.docs import PAGE
from citadel_orchestration.api.http.openapi import errors
from citadel_orchestration.api.http.query import check_names, documented_query, number_of, time_of
from citadel_orchestration.api.http.routing import RawRoute, service_of
from citadel_orchestration.api.operations.broker import BrokerInspector
from citadel_orchestration.api.operations.health import Health
from citadel_orchestration.api.operations.history import HistoryReader

router = APIRouter(route_class=RawRoute)
METRICS_TYPES = ("text/plain", "application/openmetrics-text")
MAX_ENTRIES = 1000
"""Entries of the history in one response."""
_WINDOW = ("since", "until", "limit")
_KIND = {"name": "kind", "in": "path", "required": True, "schema": {"enum": list(KINDS)}}


@router.get(
    "/v1/queues",
    tags=["operations"],
    responses={200: {"model": QueuesResponse}},
    summary="Queues and their backlog",
)
async def list_queues(request: Request) -> Response:
    """List every queue: ready messages by lane, messages that workers hold, live workers."""
    return json_response(QueuesResponse(queues=await service_of(request, BrokerInspector).queues()))


@router.get("/v1/workers", tags=["operations"], responses={200: {"model": WorkersResponse}}, summary="Live workers")
async def list_workers(request: Request) -> Response:
    """List the workers whose heartbeat is fresh."""
    return json_response(WorkersResponse(workers=await service_of(request, BrokerInspector).workers()))


@router.get(
    "/v1/health",
    tags=["operations"],
    responses={200: {"model": HealthResponse}},
    summary="Health of all dependencies",
)
async def show_health(request: Request) -> Response:
    """Check all dependencies. The status code is always 200: read the body. Probes are at `/livez` and `/readyz`.

    `down`: something required is down, which is one of broker, results, postgres, embedding or orchestration workers,
    or embedding models. `degraded`: something optional is down, which is the cache, monitoring or maintenance workers,
    or what the monitoring worker checks: Qdrant, embedding backends, LLM endpoints (its newest check counts for 15
    minutes; `detail` gives its age). `ok` otherwise.
    """
    return json_response(await service_of(request, Health).report())


@router.get(
    "/v1/history/{kind}",
    tags=["operations"],
    responses={200: {"model": HistoryResponse}},
    openapi_extra={"parameters": [_KIND, *documented_query(*_WINDOW)]},
    summary="History of health checks or system metrics",
)
async def show_history(request: Request) -> Response:
    """List entries from `since` on and before `until` (ISO 8601), newest first; at most `limit`, 100 by default."""
    query, kind = request.query_params, _kind_of(request.path_params["kind"])
    check_names(query, _WINDOW)
    since, until = time_of(query.get("since"), "since"), time_of(query.get("until"), "until")
    limit = number_of(query.get("limit", "100"), "limit", most=MAX_ENTRIES)
    entries = await service_of(request, HistoryReader).between(kind, since, until, limit)
    return json_response(HistoryResponse(kind=kind, entries=entries))


@router.get("/livez", tags=["probes"], summary="Liveness of the process")
async def live(_: Request) -> Response:
    """Answer 200 while the event loop turns, whichever dependency is down: a restart would not help."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", tags=["probes"], responses=errors(503), summary="Readiness to accept requests")
async def ready(request: Request) -> Response:
    """Answer 200 when broker, results store and PostgreSQL can be used; otherwise 503, and the body says what is wrong.

    A database that lacks a migration cannot be used; one that a newer version has migrated can.

    Workers and models do not count: requests accepted without them wait for them.
    """
    down = await service_of(request, Health).stores_down()
    if down:
        raise StoreUnavailable("not ready: " + "; ".join(f"{name}: {detail}" for name, detail in down.items()))
    return JSONResponse({"status": "ok"})


@router.get(
    "/metrics",
    tags=["probes"],
    response_class=Response,
    responses={200: {"content": {kind: {"schema": {"type": "string"}} for kind in METRICS_TYPES}}},
    summary="Metrics of the API for Prometheus",
)
async def metrics(request: Request) -> Response:
    """Return the metrics of all server processes of the API; workers and the exporter have ports of their own."""
    metrics: Metrics = request.app.state.metrics
    body, kind = await asyncio.to_thread(metrics.render, request.headers.get("accept", ""))
    return Response(body, media_type=kind)


@router.get("/docs", include_in_schema=False)
async def docs(_: Request) -> Response:
    """Show the API's documentation."""
    return HTMLResponse(PAGE)


def _kind_of(name: str) -> Kind:
    for kind in KINDS:
        if kind == name:
            return kind
    raise NotFound(f"there is no history of {name!r}; there are {', '.join(KINDS)}")
