"""Routes of embeddings: OpenAI's two, tasks, and the cache."""

import asyncio
from typing import Any
from urllib.parse import unquote

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from citadel_common.embeddings.cache import CACHE_ERRORS, EmbeddingCache
from citadel_common.embeddings.catalog import Catalog
from citadel_common.embeddings.requests import (
    LONGEST_NAME,
    check_dimensions,
    check_not_empty,
    check_options,
    check_texts,
    find_model,
)
from citadel_common.errors import UnknownModel
from citadel_contracts import GENERATE_EMBEDDING, WARM_EMBEDDING_CACHE
from citadel_contracts.api import (
    CacheStats,
    CacheWarmRequest,
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbeddingTaskRequest,
    ModelInfo,
    TaskAccepted,
)
from citadel_orchestration.api.embeddings.dialects import INPUT_TYPE_HEADER, ignored_header, understand, with_input_type
from citadel_orchestration.api.embeddings.service import EmbeddingsService
from citadel_orchestration.api.embeddings.token_input import read_request
from citadel_orchestration.api.http.bodies import documented, json_response, read_body
from citadel_orchestration.api.http.openapi import errors
from citadel_orchestration.api.http.paths import DEPLOYMENT_KEY
from citadel_orchestration.api.http.routing import RawRoute, service_of
from citadel_orchestration.api.http.trace import header_of
from citadel_orchestration.api.tasks.routes import accept_task
from citadel_orchestration.engine.catalog import PublishedCatalog
from citadel_orchestration.settings import ApiSettings

router = APIRouter(route_class=RawRoute)
_EMPTY = {"hits": 0, "misses": 0, "errors": 0, "entries": 0, "memory_bytes": 0, "memory_limit_bytes": 0, "evicted": 0}


@router.post(
    "/v1/embeddings",
    tags=["embeddings"],
    responses={200: {"model": EmbeddingsResponse}, **errors(404, 502, 504)},
    openapi_extra=documented(EmbeddingsRequest),
    summary="Embed texts",
)
async def create_embeddings(request: Request) -> Response:
    """Return the vectors of one text or a list, in order. OpenAI-compatible.

    Fields that are not known here are ignored, and the header `Citadel-Ignored-Fields` names them.
    """
    body, tokens = await read_request(request)
    if deployment := request.scope.get(DEPLOYMENT_KEY):
        body = body.model_copy(update={"model": deployment})
    body, ignored = understand(body, service_of(request, ApiSettings).api.unknown_fields)
    body = with_input_type(body, header_of(request.scope, INPUT_TYPE_HEADER.encode()).decode("latin-1"))
    answer = await service_of(request, EmbeddingsService).respond(body, tokens)
    return json_response(answer, headers=ignored_header(ignored))


@router.post(
    "/v1/embeddings/tasks",
    tags=["embeddings"],
    status_code=202,
    responses={202: {"model": TaskAccepted}, **errors(404)},
    openapi_extra=documented(EmbeddingTaskRequest),
    summary="Embed texts later",
)
async def create_embedding_task(request: Request) -> Response:
    """Accept one text or a list; the result is at `/v1/tasks/{id}`."""
    body = await read_body(request, EmbeddingTaskRequest)
    model = _check_task(body, service_of(request, ApiSettings), service_of(request, PublishedCatalog).models.latest)
    arguments = body.model_dump(exclude_defaults=True) | {"text": body.text, "model": model}
    return await accept_task(request, GENERATE_EMBEDDING, arguments)


@router.get("/v1/models", tags=["operations", "embeddings"], summary="Embedding models")
async def list_models(request: Request) -> Response:
    """List the models of the live backends; `citadel` has the details. OpenAI-compatible."""
    catalog = service_of(request, PublishedCatalog).models.latest
    data = [_described(name, model) for name, model in sorted(catalog.models.items())]
    return json_response(orjson.dumps({"object": "list", "data": data}))


@router.get(
    "/v1/models/{model:path}",
    tags=["operations", "embeddings"],
    openapi_extra={"parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]},
    summary="One embedding model",
)
async def show_model(request: Request) -> Response:
    """Show one model of the list; its id may hold `/` and `:`, encoded or not. OpenAI-compatible."""
    name = request.path_params["model"]
    catalog = service_of(request, PublishedCatalog).models.latest
    model = catalog.find(name) or catalog.find(unquote(name))  # some gateways encode twice
    if model is None:
        known = ", ".join(sorted(catalog.models)) or "none"
        raise UnknownModel.at("model", f"no backend lists {name[:LONGEST_NAME]!r}; available: {known}")
    return json_response(orjson.dumps(_described(model.name, model)))


@router.post(
    "/v1/cache/warm",
    tags=["cache"],
    status_code=202,
    responses={202: {"model": TaskAccepted}, **errors(404)},
    openapi_extra=documented(CacheWarmRequest),
    summary="Warm the cache",
)
async def warm_cache(request: Request) -> Response:
    """Compute the vectors of texts ahead of their use, for some models or for all."""
    body = await read_body(request, CacheWarmRequest)
    check_texts(body.texts, service_of(request, ApiSettings).limits, field="texts")
    catalog = service_of(request, PublishedCatalog).models.latest
    for index, name in enumerate(body.models or ()):
        find_model(name, catalog, field=f"models[{index}]")
    return await accept_task(request, WARM_EMBEDDING_CACHE, body.model_dump(exclude_none=True))


@router.get("/v1/cache", tags=["cache"], responses={200: {"model": CacheStats}}, summary="Statistics of the cache")
async def show_cache(request: Request) -> Response:
    """Count hits, misses and errors since the cache was emptied; `available` is false if the cache does not answer."""
    try:
        async with asyncio.timeout(service_of(request, ApiSettings).stores.timeout):
            counts, available = await service_of(request, EmbeddingCache).stats(), True
    except CACHE_ERRORS:
        counts, available = _EMPTY, False
    answered = counts["hits"] + counts["misses"]
    rate = round(counts["hits"] / answered, 4) if answered else 0.0
    return json_response(CacheStats(available=available, hit_rate=rate, **counts))


def _described(name: str, model: ModelInfo) -> dict[str, Any]:
    """Return a model in OpenAI's form."""
    details = model.model_dump()
    return {"id": name, "object": "model", "created": 0, "owned_by": model.backend, "citadel": details}


def _check_task(body: EmbeddingTaskRequest, settings: ApiSettings, models: Catalog) -> str:
    """Return the name of the task's model.

    Raises:
        CitadelError: The task could not be run.
    """
    texts = check_texts(body.text, settings.limits)
    check_options(body.options)
    name = body.model or settings.default_model
    model = find_model(name, models)
    if model is not None:
        check_dimensions(body.dimensions, model)
        check_not_empty(body.text, texts, model)
    return name
