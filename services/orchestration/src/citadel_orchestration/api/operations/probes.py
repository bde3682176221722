"""Probes and documentation: open to everybody."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from citadel_common.errors import StoreUnavailable
from citadel_orchestration.api.http.docs import PAGE
from citadel_orchestration.api.http.raw_route import RawRoute, services_of

router = APIRouter(route_class=RawRoute, tags=["probes"])


@router.get("/livez", summary="Whether the process serves")
async def live(_: Request) -> Response:
    """200 as long as the event loop turns, whatever else is down: a restart would not help."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", summary="Whether requests can be accepted")
async def ready(request: Request) -> Response:
    """200 when broker, results store and PostgreSQL answer; else 503, and the body names what does not.

    Workers and models do not count here: what is accepted meanwhile waits for them.
    """
    down = await services_of(request).health.stores_down()
    if down:
        raise StoreUnavailable("not ready: " + "; ".join(f"{name}: {detail}" for name, detail in down.items()))
    return JSONResponse({"status": "ok"})


@router.get("/metrics", summary="Metrics of the API for Prometheus")
async def metrics(request: Request) -> Response:
    """Those of all server processes; the workers and the exporter have their own ports."""
    metrics = services_of(request).metrics
    body, kind = await asyncio.to_thread(metrics.render, request.headers.get("accept", ""))
    return Response(body, media_type=kind)


@router.get("/docs", include_in_schema=False)
async def docs(_: Request) -> Response:
    """The API's documentation for people."""
    return HTMLResponse(PAGE)
