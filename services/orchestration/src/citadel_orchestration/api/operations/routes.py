"""Operations: queues, workers, health, models."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import orjson
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from citadel_common.errors import StoreUnavailable
from citadel_common.stores.redis import ERRORS
from citadel_contracts.api import HealthResponse, QueuesResponse, WorkersResponse
from citadel_orchestration.api.http.raw_route import RawRoute, services_of
from citadel_orchestration.api.operations.broker import Fleet

router = APIRouter(route_class=RawRoute, tags=["operations"])
T = TypeVar("T")


@router.get("/v1/queues", responses={200: {"model": QueuesResponse}}, summary="Queues and their backlog")
async def list_queues(request: Request) -> Response:
    """Ready messages by lane, messages that workers hold, live workers."""
    return _json(QueuesResponse(queues=await _asked(request, lambda fleet: fleet.queues())))


@router.get("/v1/workers", responses={200: {"model": WorkersResponse}}, summary="Live workers")
async def list_workers(request: Request) -> Response:
    """Workers whose heartbeat is fresh."""
    return _json(WorkersResponse(workers=await _asked(request, lambda fleet: fleet.workers())))


@router.get("/v1/health", responses={200: {"model": HealthResponse}}, summary="Health of all dependencies")
async def show_health(request: Request) -> Response:
    """Always 200: the body tells; probes are `/livez` and `/readyz`.

    `down` when something required is down: broker, results, postgres, embedding or orchestration workers, or models
    to embed with. `degraded` when something optional is: the cache, monitoring or maintenance workers, or, as the
    newest health check of the monitoring worker has found (at most 15 minutes ago; its age is told), Qdrant, an
    embedding backend or an LLM endpoint. `ok` otherwise.
    """
    return _json(await services_of(request).health.report())


@router.get("/v1/models", tags=["embeddings"], summary="Embedding models")
async def list_models(request: Request) -> Response:
    """OpenAI-compatible: the models that live backends have; `citadel` has the details."""
    catalog = services_of(request).models.catalog
    data = [
        {"id": name, "object": "model", "created": 0, "owned_by": model.backend, "citadel": model.model_dump()}
        for name, model in sorted(catalog.models.items())
    ]
    return Response(orjson.dumps({"object": "list", "data": data}), media_type="application/json")


async def _asked(request: Request, question: Callable[[Fleet], Awaitable[T]]) -> T:
    services = services_of(request)
    try:
        async with asyncio.timeout(services.settings.stores.timeout):
            return await question(services.fleet)
    except ERRORS:
        raise StoreUnavailable("the broker does not answer; check that Redis runs") from None


def _json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(), media_type="application/json")
