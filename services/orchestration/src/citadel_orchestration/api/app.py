"""The ASGI application: routes, error responses, middleware, and services that live as long as the process."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from citadel_common.errors import CitadelError
from citadel_common.system import cgroup
from citadel_common.telemetry import NULL_METRICS, Metrics
from citadel_contracts.api import Problem
from citadel_orchestration.api.batches import routes as batches
from citadel_orchestration.api.collections import routes as collections
from citadel_orchestration.api.dead_letters import routes as dead_letters
from citadel_orchestration.api.embeddings import routes as embeddings
from citadel_orchestration.api.embeddings.dialects import IGNORED_HEADER
from citadel_orchestration.api.http.auth import Auth
from citadel_orchestration.api.http.body_limit import BodyLimit
from citadel_orchestration.api.http.body_memory import BodyMemory, capacity_of
from citadel_orchestration.api.http.connections import STATE_KEY, Connections
from citadel_orchestration.api.http.middleware import Middleware
from citadel_orchestration.api.http.openapi import with_whole_document
from citadel_orchestration.api.http.paths import Paths
from citadel_orchestration.api.http.problems import on_error
from citadel_orchestration.api.http.rate_limit import RateLimit
from citadel_orchestration.api.http.routing import FastPath, RawRoute
from citadel_orchestration.api.http.sampling import RouteSampling, warn_of_unknown
from citadel_orchestration.api.http.worker import BEFORE_SHUTDOWN
from citadel_orchestration.api.operations import routes as operations
from citadel_orchestration.api.operations.health import VERSION
from citadel_orchestration.api.runs import routes as runs
from citadel_orchestration.api.runs.service import RunService
from citadel_orchestration.api.services import RedisClients, Services
from citadel_orchestration.api.tasks import routes as tasks
from citadel_orchestration.api.workflows import routes as workflows
from citadel_orchestration.definition.json_schema import json_schema
from citadel_orchestration.settings import ApiFragment, ApiSettings
from citadel_orchestration.step_types import StepType

log = structlog.get_logger(__name__)


def create_app(settings: ApiSettings, metrics: Metrics = NULL_METRICS, *, types: Iterable[StepType[Any]] = ()) -> Any:
    """Return the ASGI application.

    Args:
        settings: Settings of the process.
        metrics: Metrics of the process.
        types: Step types beside those that Citadel ships; the workers must have them too.
    """
    redis, api = RedisClients.of(settings), settings.api
    app = FastAPI(
        title="Citadel",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": api.base_path}] if api.base_path else None,
        lifespan=_lifespan(lambda: Services(settings, redis, metrics, types=types), settings.api, metrics),
        responses={"default": {"model": Problem, "description": "A problem document (RFC 9457)"}},
    )
    for handled in (CitadelError, HTTPException, Exception):
        app.add_exception_handler(handled, on_error)
    app.state.routes = []
    for module in (embeddings, tasks, workflows, batches, runs, collections, operations, dead_letters):
        app.include_router(module.router)
        app.state.routes += module.router.routes
    with_whole_document(app, lambda: _definitions_of(app))
    warn_of_unknown(api.trace_ratios, _named(app.state.routes))
    busiest = [route for route in embeddings.router.routes if isinstance(route, RawRoute)]
    served = Middleware(
        FastPath(app, busiest),
        paths=Paths(api.base_path),
        auth=Auth(api.keys, api.cors_origins),
        rate_limit=RateLimit(redis.results, api.rate_per_minute, processes=api.workers, metrics=metrics),
        body_limit=BodyLimit(api.max_body_bytes, api.max_batch_bytes, BodyMemory(_body_memory(api), metrics)),
        sampling=RouteSampling(api.trace_ratios),
        metrics=metrics,
    )
    return _with_cors(served, api.cors_origins) if api.cors_origins else served


def _body_memory(api: ApiFragment) -> int:
    group = cgroup.read()
    return capacity_of(api.max_body_memory, api.workers, group.memory_limit if group else None)


def _definitions_of(app: FastAPI) -> dict[str, Any]:
    """Return the JSON Schema of the definitions that the process takes."""
    runs_service: RunService = app.state.services[RunService]
    return json_schema(runs_service.submissions.types.public)


def _named(routes: Iterable[Any]) -> set[str]:
    """Return methods and paths, as `GET /v1/runs`."""
    return {f"{method} {route.path}" for route in routes for method in route.methods}


def _with_cors(app: Any, origins: tuple[str, ...]) -> Any:
    """Return the application for browsers that show pages of these origins; a preflight needs no key."""
    every = ["*"]
    exposed = ["Location", "Retry-After", "X-Should-Retry", "X-Request-Id", "Traceresponse", IGNORED_HEADER]
    return CORSMiddleware(app, allow_origins=origins, allow_methods=every, allow_headers=every, expose_headers=exposed)


def _lifespan(build: Callable[[], Services], api: ApiFragment, metrics: Metrics) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        services, connections = build(), Connections(api, metrics)
        app.state.services, app.state.metrics = services.by_class, metrics
        await services.start()
        watch = asyncio.create_task(connections.watch())
        _freeze_garbage_collector()
        log.info("api_ready", host=api.host, port=api.port)
        yield {BEFORE_SHUTDOWN: services.end_streams, STATE_KEY: connections}
        watch.cancel()
        await services.stop()
        log.info("api_stopped")

    return lifespan


def _freeze_garbage_collector() -> None:
    """Exempt all objects from garbage collection: what is loaded by now stays until the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
