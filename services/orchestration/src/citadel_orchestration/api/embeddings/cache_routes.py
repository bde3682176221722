"""The embedding cache: warming, statistics."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from citadel_common.embeddings.cache import CACHE_ERRORS
from citadel_common.embeddings.requests import check_texts, find_model
from citadel_contracts import WARM_EMBEDDING_CACHE
from citadel_contracts.api import CacheStats, CacheWarmRequest, TaskAccepted
from citadel_orchestration.api.http.bodies import documented, read_body
from citadel_orchestration.api.http.raw_route import RawRoute, services_of
from citadel_orchestration.api.tasks.accepting import accepted

router = APIRouter(route_class=RawRoute, tags=["cache"])
_EMPTY = {"hits": 0, "misses": 0, "errors": 0, "entries": 0, "memory_bytes": 0, "memory_limit_bytes": 0, "evicted": 0}


@router.post(
    "/v1/cache/warm",
    status_code=202,
    responses={202: {"model": TaskAccepted}},
    openapi_extra=documented(CacheWarmRequest),
    summary="Warm the cache",
)
async def warm_cache(request: Request) -> Response:
    """Has the vectors of texts computed ahead of their use, for some models or for all."""
    body = await read_body(request, CacheWarmRequest)
    services = services_of(request)
    check_texts(body.texts, services.settings.limits, field="texts")
    known = services.models.catalog
    for index, name in enumerate(body.models or ()):
        find_model(name, known, field=f"models[{index}]")
    return await accepted(services, WARM_EMBEDDING_CACHE, body.model_dump(exclude_none=True))


@router.get("/v1/cache", responses={200: {"model": CacheStats}}, summary="Statistics of the cache")
async def show_cache(request: Request) -> Response:
    """Hits, misses and errors since the cache was emptied; a cache that does not answer is not `available`."""
    services = services_of(request)
    try:
        async with asyncio.timeout(services.settings.stores.timeout):
            counts, available = await services.cache.stats(), True
    except CACHE_ERRORS:
        counts, available = _EMPTY, False
    answered = counts["hits"] + counts["misses"]
    rate = round(counts["hits"] / answered, 4) if answered else 0.0
    stats = CacheStats(available=available, hit_rate=rate, **counts)
    return Response(stats.model_dump_json(), media_type="application/json")
