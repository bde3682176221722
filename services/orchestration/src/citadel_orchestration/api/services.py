"""The parts that the routes share, built once per process."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.embeddings.catalog import CatalogReader
from citadel_common.stores.redis import connect_async, redacted
from citadel_common.telemetry import Metrics
from citadel_orchestration.api.batches.service import Batches
from citadel_orchestration.api.dead_letters.service import Letters
from citadel_orchestration.api.embeddings.compute import Computation
from citadel_orchestration.api.embeddings.known_models import KnownModels
from citadel_orchestration.api.embeddings.memory_cache import HotCache
from citadel_orchestration.api.embeddings.service import Embedder
from citadel_orchestration.api.operations.broker import Fleet
from citadel_orchestration.api.operations.health import Health, probes
from citadel_orchestration.api.operations.history import History
from citadel_orchestration.api.runs.record import Record
from citadel_orchestration.api.runs.service import Runs
from citadel_orchestration.api.tasks.backlog import Backlog
from citadel_orchestration.api.tasks.publish import Acceptance, Publisher
from citadel_orchestration.api.tasks.results import Results
from citadel_orchestration.api.workflows.planning import Plans
from citadel_orchestration.settings import ApiSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis


LEAVE = "citadel.leave"
"""Name under which the application's lifespan gives what is to be called when the server begins to stop."""


@dataclass(frozen=True, kw_only=True)
class Stores:
    """Clients of the three Redis roles; connections open at first use."""

    broker: "Redis"
    results: "Redis"
    cache: "Redis"

    @classmethod
    def of(cls, settings: ApiSettings) -> Self:
        """The clients that the settings describe."""
        stores = settings.stores
        return cls(
            broker=connect_async(settings.broker_url, stores),
            results=connect_async(settings.results, stores),
            cache=connect_async(settings.cache_store, stores, timeout=settings.cache.timeout),
        )

    async def aclose(self) -> None:
        """Closes the connections."""
        for client in (self.broker, self.results, self.cache):
            await client.aclose()


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the routes work with; belongs to one event loop."""

    settings: ApiSettings
    stores: Stores
    cache: EmbeddingCache
    models: KnownModels
    metrics: Metrics
    publisher: Publisher
    acceptance: Acceptance
    results: Results
    backlog: Backlog
    embedder: Embedder
    fleet: Fleet
    health: Health
    runs: Runs
    batches: Batches
    plans: Plans
    record: Record
    letters: Letters
    history: History

    @classmethod
    def of(cls, settings: ApiSettings, stores: Stores, metrics: Metrics) -> Self:
        """Builds the parts."""
        api = settings.api
        cache = EmbeddingCache(stores.cache, settings.cache, metrics, count_misses=False)
        models = KnownModels(CatalogReader(stores.results, refresh=0.0))
        publisher, results = Publisher(settings), Results(stores.results)
        backlog = Backlog(stores.broker, limit=api.max_backlog, timeout=settings.stores.timeout)
        computation = Computation(publisher, results, backlog, timeout=api.request_timeout, max_waiting=api.max_waiting)
        fleet = Fleet(stores.broker, dead_after=settings.worker.dead_after)
        record = Record(settings, stores.results, metrics)
        history = History(stores.results, timeout=settings.stores.timeout)
        return cls(
            settings=settings,
            metrics=metrics,
            stores=stores,
            cache=cache,
            models=models,
            publisher=publisher,
            acceptance=Acceptance(record.runs.database, publisher, first_look=settings.accepted.first_look),
            results=results,
            backlog=backlog,
            embedder=Embedder(
                cache,
                HotCache(max_bytes=api.hot_cache_bytes, ttl=api.hot_cache_ttl),
                models,
                computation,
                limits=settings.limits,
                default_model=settings.default_model,
            ),
            fleet=fleet,
            health=Health(
                probes(
                    settings,
                    broker=stores.broker,
                    results=stores.results,
                    cache=stores.cache,
                    fleet=fleet,
                    postgres=record.ping,
                    postgres_url=redacted(settings.postgres_dsn),
                ),
                history.told,
            ),
            runs=record.runs,
            batches=Batches(
                runs=record.runs,
                settings=settings.workflows,
                limits=settings.limits,
                default_model=settings.default_model,
                uploads=asyncio.Semaphore(api.max_uploads),
            ),
            plans=Plans(
                submissions=record.runs.submissions, cache=cache, models=models, default_model=settings.default_model
            ),
            record=record,
            letters=Letters(settings),
            history=history,
        )

    async def start(self) -> None:
        """Begins to listen for results and reads the catalogue; a store that is down holds nothing up."""
        self.results.start()
        self.record.start()
        await self.models.start()

    def leave(self) -> None:
        """Ends what would hold up a stop; called when the server takes no more requests."""
        self.record.leave()

    async def stop(self) -> None:
        """Ends what `start` began and closes all connections."""
        await self.record.stop()
        await self.models.stop()
        await self.results.stop()
        self.publisher.close()
        self.letters.close()
        await self.cache.aclose()
        await self.stores.aclose()
