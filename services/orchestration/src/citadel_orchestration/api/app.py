"""The application: routes, error bodies, the gate around them, and what lives as long as the process."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from citadel_common.contracts.api import Problem
from citadel_common.errors import CitadelError
from citadel_common.telemetry import NULL_TELEMETRY, Telemetry
from citadel_orchestration.api.auth import Auth
from citadel_orchestration.api.body_limit import BodyLimit
from citadel_orchestration.api.direct import DirectRoutes
from citadel_orchestration.api.gate import Gate
from citadel_orchestration.api.health import VERSION
from citadel_orchestration.api.problems import on_error
from citadel_orchestration.api.rate import RateLimit
from citadel_orchestration.api.raw_route import RawRoute
from citadel_orchestration.api.routes import (
    batches,
    cache,
    collections,
    dead_letters,
    embeddings,
    history,
    operations,
    probes,
    runs,
    tasks,
    workflows,
)
from citadel_orchestration.api.services import LEAVE, Services, Stores
from citadel_orchestration.settings import ApiSettings

log = structlog.get_logger(__name__)


def create_app(settings: ApiSettings, telemetry: Telemetry = NULL_TELEMETRY) -> Any:
    """The ASGI application."""
    stores = Stores.of(settings)
    app = FastAPI(
        title="Citadel",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings, stores, telemetry),
        responses={"default": {"model": Problem, "description": "A problem document (RFC 9457)"}},
    )
    for handled in (CitadelError, HTTPException, Exception):
        app.add_exception_handler(handled, on_error)
    resources = (embeddings, tasks, cache, workflows, batches, runs, collections)
    for module in (*resources, operations, dead_letters, history, probes):
        app.include_router(module.router)
    api = settings.api
    busiest = [route for route in embeddings.router.routes if isinstance(route, RawRoute)]
    return Gate(
        DirectRoutes(app, busiest),
        Auth(api.keys),
        RateLimit(stores.results, api.rate_per_minute),
        BodyLimit(api.max_body_bytes, api.max_batch_bytes),
        telemetry,
    )


def _lifespan(settings: ApiSettings, stores: Stores, telemetry: Telemetry) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        services = Services.of(settings, stores, telemetry)
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
