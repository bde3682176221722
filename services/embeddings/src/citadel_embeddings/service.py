"""Builds the parts of the embeddings worker on one event loop, and closes them."""

import asyncio
import contextlib

import uvloop

from citadel_common.deadline import Deadline
from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.loop_thread import LoopThread
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.stores.redis import connect_async
from citadel_common.tasks.app import clock_of
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.telemetry import NULL_METRICS, Metrics
from citadel_embeddings.backends.base import Backend
from citadel_embeddings.backends.in_process import URL as LOCAL_URL
from citadel_embeddings.backends.versions import ModelVersions
from citadel_embeddings.batch_calls import BatchCaller
from citadel_embeddings.batching import Batcher, Budget
from citadel_embeddings.endpoints.pool import EndpointPool
from citadel_embeddings.engine import EmbeddingEngine
from citadel_embeddings.models import ModelRegistry
from citadel_embeddings.settings import EmbeddingsFragment, EmbeddingsSettings
from citadel_embeddings.single_flight import SingleFlight
from citadel_embeddings.step_vectors import StepVectors
from citadel_embeddings.tasks import EmbeddingTasks

START_PATIENCE = 60.0
"""Seconds in which the first question to the backends must end; a worker starts even if none answers."""


class EmbeddingService:
    """All parts of the embeddings worker."""

    def __init__(self, settings: EmbeddingsSettings, metrics: Metrics = NULL_METRICS) -> None:
        self._settings = settings
        self._entries = list(settings.embeddings.backends.items())
        self._metrics = metrics
        self._loop = LoopThread("engine", loop_factory=uvloop.new_event_loop)
        self._closers: contextlib.AsyncExitStack = contextlib.AsyncExitStack()
        self._refresher: asyncio.Task[None] | None = None

    def start(self, runtime: TaskRuntime) -> None:
        """Open everything and register the tasks."""
        engine, steps = self._loop.call(self._open(), Deadline.after(START_PATIENCE))
        EmbeddingTasks(engine, steps, self._loop, self._settings, clock_of(runtime.app)).register(runtime.app)

    def interrupt(self) -> None:
        """Hand running tasks back to the queue."""
        self._loop.interrupt()

    def close(self) -> None:
        """Close everything."""
        self._loop.close(self._aclose)

    async def _open(self) -> tuple[EmbeddingEngine, StepVectors]:
        """Build the line from its end: backends, endpoints, batching, single flight, engine."""
        settings = self._settings
        cache = EmbeddingCache(
            connect_async(settings.cache_store, settings.stores, timeout=settings.cache.timeout),
            settings.cache,
            self._metrics,
        )
        store = connect_async(settings.results, settings.stores)
        broker = connect_async(settings.broker_url, settings.stores)
        backends = {name: _open_backend(entry, settings.embeddings) for name, entry in self._entries}
        versions = {name: ModelVersions(backends[name]) for name, entry in self._entries if entry.kind == "ollama"}
        batchers = {
            name: self._batcher(name, entry, backends[name], cache, versions.get(name)) for name, entry in self._entries
        }
        single_flight = SingleFlight(cache, batchers)
        closed_first = [single_flight.aclose, *(batcher.aclose for batcher in batchers.values())]
        closed_last = [cache.aclose, store.aclose, broker.aclose, *(backend.aclose for backend in backends.values())]
        for close in closed_last + closed_first:  # the stack runs from its end
            self._closers.push_async_callback(close)
        registry = ModelRegistry(fragment=settings.embeddings, backends=backends, store=store, versions=versions)
        await registry.refresh()
        self._refresher = asyncio.create_task(registry.keep_fresh())
        engine = EmbeddingEngine(
            registry=registry,
            cache=cache,
            single_flight=single_flight,
            limits=settings.limits,
            patience=settings.embeddings.patience,
            metrics=self._metrics,
        )
        return engine, StepVectors(engine, broker, default_model=settings.default_model)

    def _batcher(
        self, name: str, entry: BackendSettings, backend: Backend, cache: EmbeddingCache, versions: ModelVersions | None
    ) -> Batcher:
        fragment = self._settings.embeddings
        if entry.kind == "local":
            entry = entry.model_copy(update={"urls": [LOCAL_URL], "concurrency": 1, "max_concurrency": 1})
        pool = EndpointPool(name, backend, entry, patience=fragment.patience, metrics=self._metrics, versions=versions)
        budget = Budget(texts=entry.max_batch_texts, tokens=entry.max_batch_tokens, linger=fragment.linger)
        return Batcher(BatchCaller(pool, cache), pool, budget)

    async def _aclose(self) -> None:
        if self._refresher is not None:
            self._refresher.cancel()
        await self._closers.aclose()


def _open_backend(settings: BackendSettings, fragment: EmbeddingsFragment) -> Backend:
    """Return the backend of the kind that the settings name; only its own module is imported."""
    if settings.kind == "ollama":
        from citadel_embeddings.backends.ollama import OllamaBackend

        return OllamaBackend(settings)
    if settings.kind == "openai":
        from citadel_embeddings.backends.openai import OpenAIBackend

        return OpenAIBackend(settings)
    from citadel_embeddings.backends.in_process import LocalBackend

    return LocalBackend(cache_dir=fragment.model_cache, threads=fragment.local_threads)
