"""The embedding engine in this process, before a real server or its double; the cache is in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from citadel_common.settings.common import LimitSettings
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.telemetry import NULL_METRICS
from citadel_embeddings.backends.ollama import OllamaBackend
from citadel_embeddings.backends.openai import OpenAIBackend
from citadel_embeddings.backends.versions import ModelVersions
from citadel_embeddings.batch_calls import BatchCaller
from citadel_embeddings.batching import Batcher, Budget
from citadel_embeddings.endpoints.pool import EndpointPool
from citadel_embeddings.engine import EmbeddingEngine
from citadel_embeddings.models import ModelRegistry
from citadel_embeddings.settings import EmbeddingsFragment
from citadel_embeddings.single_flight import SingleFlight
from tests.support.engine import FakeCache
from tests.support.servers import Server

KINDS = {"ollama": OllamaBackend, "openai": OpenAIBackend}


class _NoStore:
    async def set(self, *_: Any, **__: Any) -> None:
        """Take the catalogue."""


@asynccontextmanager
async def engine_before(server: Server, **profile: Any) -> AsyncIterator[EmbeddingEngine]:
    """Open an engine whose one backend is a server; `profile` is that of the server's model, by default built in."""
    settings = BackendSettings(kind=server.style or "openai", urls=[server.url])
    backend = KINDS[settings.kind](settings)
    values = {"backends": {"main": settings}, "profiles": {server.model: profile} if profile else {}, "patience": 10.0}
    fragment = EmbeddingsFragment.model_validate(values)
    versions = {"main": ModelVersions(backend)} if settings.kind == "ollama" else {}
    pool = EndpointPool("main", backend, settings, patience=10.0, metrics=NULL_METRICS, versions=versions.get("main"))
    cache: Any = FakeCache()
    batcher = Batcher(BatchCaller(pool, cache), pool, Budget(texts=32, tokens=16_384, linger=0.005))
    single_flight = SingleFlight(cache, {"main": batcher})
    store: Any = _NoStore()
    engine = EmbeddingEngine(
        registry=ModelRegistry(fragment=fragment, backends={"main": backend}, store=store, versions=versions),
        cache=cache,
        single_flight=single_flight,
        limits=LimitSettings(),
        patience=10.0,
        metrics=NULL_METRICS,
    )
    try:
        yield engine
    finally:
        await batcher.aclose()
        await single_flight.aclose()
        await backend.aclose()
