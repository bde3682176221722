"""The application: routes, error bodies, the gate around them, and what lives as long as the process."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from citadel_common.errors import CitadelError
from citadel_common.telemetry import NULL_METRICS, Metrics
from citadel_contracts.api import Problem
from citadel_orchestration.api.batches import routes as batches
from citadel_orchestration.api.collections import routes as collections
from citadel_orchestration.api.dead_letters import routes as dead_letters
from citadel_orchestration.api.embeddings import cache_routes
from citadel_orchestration.api.embeddings import routes as embeddings
from citadel_orchestration.api.http.auth import Auth
from citadel_orchestration.api.http.body_limit import BodyLimit
from citadel_orchestration.api.http.fast_path import DirectRoutes
from citadel_orchestration.api.http.middleware import Gate
from citadel_orchestration.api.http.problems import on_error
from citadel_orchestration.api.http.rate_limit import RateLimit
from citadel_orchestration.api.http.raw_route import RawRoute
from citadel_orchestration.api.operations import history_routes, probes
from citadel_orchestration.api.operations import routes as operations
from citadel_orchestration.api.operations.health import VERSION
from citadel_orchestration.api.runs import routes as runs
from citadel_orchestration.api.services import LEAVE, Services, Stores
from citadel_orchestration.api.tasks import routes as tasks
from citadel_orchestration.api.workflows import routes as workflows
from citadel_orchestration.settings import ApiSettings

log = structlog.get_logger(__name__)


def create_app(settings: ApiSettings, metrics: Metrics = NULL_METRICS) -> Any:
    """The ASGI application."""
    stores = Stores.of(settings)
    app = FastAPI(
        title="Citadel",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings, stores, metrics),
        responses={"default": {"model": Problem, "description": "A problem document (RFC 9457)"}},
    )
    for handled in (CitadelError, HTTPException, Exception):
        app.add_exception_handler(handled, on_error)
    resources = (embeddings, tasks, cache_routes, workflows, batches, runs, collections)
    for module in (*resources, operations, dead_letters, history_routes, probes):
        app.include_router(module.router)
    api = settings.api
    busiest = [route for route in embeddings.router.routes if isinstance(route, RawRoute)]
    return Gate(
        DirectRoutes(app, busiest),
        Auth(api.keys),
        RateLimit(stores.results, api.rate_per_minute),
        BodyLimit(api.max_body_bytes, api.max_batch_bytes),
        metrics,
    )


def _lifespan(settings: ApiSettings, stores: Stores, metrics: Metrics) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        services = Services.of(settings, stores, metrics)
        app.state.services = services
        await services.start()
        _settle_memory()
        log.info("api_ready", host=settings.api.host, port=settings.api.port)
        yield {LEAVE: services.leave}
        await services.stop()
        log.info("api_stopped")

    return lifespan


def _settle_memory() -> None:
    """What is loaded now stays: the garbage collector need not walk it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
