"""Builds the service: backends, cache, engine and tasks on one event loop."""

import asyncio
import contextlib

import uvloop

from citadel_common.deadline import Deadline
from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.loop_thread import LoopThread
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.stores.redis import connect_async
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.telemetry import NULL_METRICS, Metrics
from citadel_embeddings.backends import open_backend
from citadel_embeddings.backends.in_process import URL as LOCAL_URL
from citadel_embeddings.calls import BatchCaller
from citadel_embeddings.coalescer import Budget, Coalescer
from citadel_embeddings.endpoints import Endpoints
from citadel_embeddings.engine import EmbeddingEngine
from citadel_embeddings.flights import Flights
from citadel_embeddings.models import ModelRegistry
from citadel_embeddings.settings import EmbeddingsSettings
from citadel_embeddings.step_vectors import StepVectors
from citadel_embeddings.tasks import EmbeddingTasks

START_PATIENCE = 60.0
"""Seconds the first look at the backends may take; a worker starts even if none answers."""


class EmbeddingService:
    """All parts of the embeddings worker, and their end."""

    def __init__(self, settings: EmbeddingsSettings, metrics: Metrics = NULL_METRICS) -> None:
        self._settings = settings
        self._metrics = metrics
        self._loop = LoopThread("engine", loop_factory=uvloop.new_event_loop)
        self._closers: contextlib.AsyncExitStack = contextlib.AsyncExitStack()
        self._refresher: asyncio.Task[None] | None = None

    def start(self, runtime: TaskRuntime) -> None:
        """Opens everything and registers the tasks."""
        engine, steps = self._loop.call(self._open(), Deadline.after(START_PATIENCE))
        EmbeddingTasks(engine, steps, self._loop, self._settings).register(runtime.app)

    def interrupt(self) -> None:
        """Hands running tasks back."""
        self._loop.interrupt()

    def close(self) -> None:
        """Closes everything."""
        self._loop.close(self._aclose)

    async def _open(self) -> tuple[EmbeddingEngine, StepVectors]:
        settings = self._settings
        cache = EmbeddingCache(
            connect_async(settings.cache_store, settings.stores, timeout=settings.cache.timeout),
            settings.cache,
            self._metrics,
        )
        self._closers.push_async_callback(cache.aclose)
        store = connect_async(settings.results, settings.stores)
        self._closers.push_async_callback(store.aclose)
        broker = connect_async(settings.broker_url, settings.stores)
        self._closers.push_async_callback(broker.aclose)
        flights = Flights(cache)
        self._closers.push_async_callback(flights.aclose)
        registry = ModelRegistry(
            fragment=settings.embeddings,
            backends={name: open_backend(entry, settings.embeddings) for name, entry in self._backends()},
            store=store,
        )
        for name, entry in self._backends():
            self._closers.push_async_callback(registry.backends[name].aclose)
            coalescer = self._coalescer(name, entry, registry, flights)
            self._closers.push_async_callback(coalescer.aclose)
            flights.add_backend(name, coalescer)
        await registry.refresh()
        self._refresher = asyncio.create_task(registry.keep_fresh())
        engine = EmbeddingEngine(
            registry=registry,
            cache=cache,
            flights=flights,
            limits=settings.limits,
            patience=settings.embeddings.patience,
            metrics=self._metrics,
        )
        return engine, StepVectors(engine, broker, default_model=settings.default_model)

    def _backends(self) -> list[tuple[str, BackendSettings]]:
        return list(self._settings.embeddings.backends.items())

    def _coalescer(self, name: str, entry: BackendSettings, registry: ModelRegistry, flights: Flights) -> Coalescer:
        local = entry.kind == "local"
        endpoints = Endpoints(
            name,
            [LOCAL_URL] if local else entry.urls,
            concurrency=1 if local else entry.concurrency,
            max_concurrency=1 if local else entry.max_concurrency,
            patience=self._settings.embeddings.patience,
            longest_pause=entry.longest_pause,
            metrics=self._metrics,
        )
        caller = BatchCaller(registry.backends[name], endpoints, timeout=entry.timeout, settle=flights.settle)
        budget = Budget(
            texts=entry.max_batch_texts, tokens=entry.max_batch_tokens, linger=self._settings.embeddings.linger
        )
        return Coalescer(caller, endpoints, budget)

    async def _aclose(self) -> None:
        if self._refresher is not None:
            self._refresher.cancel()
        await self._closers.aclose()
