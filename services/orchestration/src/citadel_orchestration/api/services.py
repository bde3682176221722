"""Wiring of the API: the services that the routes use, opened and closed with the process."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import psycopg
import structlog

from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.errors import StoreUnavailable
from citadel_common.memory import MemoryBudget
from citadel_common.settings.common import WrongSetting
from citadel_common.stores.redis import connect_async
from citadel_common.tasks.app import create_app
from citadel_common.telemetry import Metrics
from citadel_orchestration.api.batches.service import BatchService
from citadel_orchestration.api.dead_letters.service import DeadLetterService
from citadel_orchestration.api.embeddings.responses import MemoryCache
from citadel_orchestration.api.embeddings.service import EmbeddingsService
from citadel_orchestration.api.http.followers import Followers
from citadel_orchestration.api.operations.broker import BrokerInspector
from citadel_orchestration.api.operations.health import Health, Unhealthy, configured, probes
from citadel_orchestration.api.operations.history import HistoryReader
from citadel_orchestration.api.runs.notifier import RunNotifier
from citadel_orchestration.api.runs.outputs import RunOutputs
from citadel_orchestration.api.runs.service import RunService, StepDispatcher
from citadel_orchestration.api.tasks.calls import ResultListener, TaskCaller
from citadel_orchestration.api.tasks.publisher import BacklogLimit, Publisher
from citadel_orchestration.api.tasks.redis_memory import RedisMemory
from citadel_orchestration.api.tasks.service import TaskService
from citadel_orchestration.api.workflows.planning import PlanService
from citadel_orchestration.db.migrate import migrate_patiently
from citadel_orchestration.db.schema_version import SchemaVersion
from citadel_orchestration.settings import ApiSettings
from citadel_orchestration.step_types import StepType
from citadel_orchestration.wiring import wire

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)
MIGRATION_PAUSE = 30.0
"""Seconds until a database that could not be migrated is tried again; `/readyz` says so meanwhile."""


@dataclass(frozen=True, kw_only=True)
class RedisClients:
    """Clients of the three Redis roles; each connects when it is first used."""

    broker: "Redis"
    results: "Redis"
    cache: "Redis"

    @classmethod
    def of(cls, settings: ApiSettings) -> Self:
        """Return the clients that the settings describe."""
        stores = settings.stores
        return cls(
            broker=connect_async(settings.broker_url, stores),
            results=connect_async(settings.results, stores),
            cache=connect_async(settings.cache_store, stores, timeout=settings.cache.timeout),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        for client in (self.broker, self.results, self.cache):
            await client.aclose()


class Services:
    """The services of one server process; belongs to one event loop.

    Args:
        settings: Settings of the process.
        redis: Clients of the three roles of Redis.
        metrics: Metrics of the process.
        types: Step types beside those that Citadel ships.

    Attributes:
        by_class: One service of each class, for `service_of`.
    """

    def __init__(
        self, settings: ApiSettings, redis: RedisClients, metrics: Metrics, *, types: Iterable[StepType[Any]] = ()
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._metrics = metrics
        self._wiring = wire(settings, redis.results, metrics, name="api", types=types)
        self._schema = SchemaVersion(self._wiring.database)
        self._stopping = threading.Event()
        self._cache = EmbeddingCache(redis.cache, settings.cache, metrics, count_misses=False)
        self._producer = create_app(settings)
        # Celery would subscribe to the result of every task that it publishes; `ResultListener` subscribes once.
        self._producer.conf.result_backend = "disabled://"
        self._publisher = Publisher(self._producer, settings)
        self._results = ResultListener(redis.results)
        self._notifier = RunNotifier(settings.postgres_dsn, settings.direct_dsn)
        self._dead_letters = DeadLetterService(self._producer, settings)
        self.by_class = {type(service): service for service in self._build()}

    async def start(self) -> None:
        """Start to listen for results and notifications; waits for no store."""
        threading.Thread(target=self._migrate, name="migrate", daemon=True).start()
        self._wiring.database.open()
        self._results.start()
        self._notifier.start()
        await self._wiring.catalog.start()

    def end_streams(self) -> None:
        """End responses that would last as long as their runs; called when the server begins to shut down."""
        self._notifier.end_streams()

    async def stop(self) -> None:
        """Stop what `start` started and close all connections."""
        self._stopping.set()
        for part in (self._notifier, self._wiring.catalog, self._results):
            await part.stop()
        await asyncio.to_thread(self._wiring.notifications.close)
        await asyncio.to_thread(self._wiring.database.close)
        for client in (self._publisher, self._dead_letters, self._producer):
            client.close()
        await self._cache.aclose()
        await self._redis.aclose()

    def _migrate(self) -> None:
        while not self._stopping.is_set():
            try:
                migrate_patiently(self._settings)
            except (StoreUnavailable, WrongSetting, psycopg.Error) as error:
                log.error("database_not_migrated", problem=str(error))
                self._stopping.wait(MIGRATION_PAUSE)
            else:
                return

    def _build(self) -> Iterator[Any]:
        settings, wiring, api = self._settings, self._wiring, self._settings.api
        timeout, roles = settings.stores.timeout, {"broker": self._redis.broker, "results": self._redis.results}
        memory = RedisMemory(roles, timeout=timeout, metrics=self._metrics)
        backlog = BacklogLimit(
            self._redis.broker, limit=api.max_backlog, timeout=timeout, memory=memory, metrics=self._metrics
        )
        budget = MemoryBudget(settings.workflows.memory // 2, setting="workflows.memory")
        yield RunOutputs(database=wiring.database, definitions=wiring.definitions, memory=budget)
        runs = RunService(
            database=wiring.database,
            definitions=wiring.definitions,
            submissions=wiring.submissions,
            commands=wiring.commands,
            dispatcher=StepDispatcher(self._producer),
            notifier=self._notifier,
            memory=budget,
            most_inline=api.max_inline_bytes,
            admission=wiring.admission,
            queues=backlog,
        )
        followers = Followers(api.max_followers, api.max_caller_followers, self._metrics)
        yield from (settings, self._cache, wiring.catalog, self._dead_letters, backlog, runs, followers)
        yield EmbeddingsService(
            self._cache,
            MemoryCache(max_bytes=api.hot_cache_bytes, ttl=api.hot_cache_ttl),
            wiring.catalog.models,
            TaskCaller(
                self._publisher, self._results, backlog, timeout=api.request_timeout, max_waiting=api.max_waiting
            ),
            limits=settings.limits,
            default_model=settings.default_model,
        )
        yield TaskService(wiring, self._publisher, backlog, self._redis.results, settings)
        yield BatchService(
            runs=runs,
            settings=settings.workflows,
            limits=settings.limits,
            default_model=settings.default_model,
            uploads=asyncio.Semaphore(api.max_uploads),
        )
        yield PlanService(
            submissions=wiring.submissions,
            cache=self._cache,
            models=wiring.catalog.models,
            default_model=settings.default_model,
        )
        yield from self._build_operations()

    def _build_operations(self) -> Iterator[Any]:
        settings, redis = self._settings, self._redis
        inspector = BrokerInspector(
            redis.broker, dead_after=settings.worker.dead_after, timeout=settings.stores.timeout
        )
        history = HistoryReader(redis.results, timeout=settings.stores.timeout)
        dependencies = probes(
            settings,
            broker=redis.broker,
            results=redis.results,
            cache=redis.cache,
            inspector=inspector,
            postgres=self._ping_postgres,
            storage=self._check_storage,
        )
        yield from (inspector, history, Health(dependencies, history.health, configured(settings)))

    async def _ping_postgres(self) -> None:
        """Make a round trip to PostgreSQL, shared by concurrent callers, and see that its schema is new enough.

        Raises:
            StoreUnavailable: PostgreSQL has not answered within a few seconds, takes no changes, or lacks a migration.
        """
        await asyncio.shield(asyncio.wrap_future(self._wiring.database.watch.check()))
        self._wiring.database.refuse_full()
        await asyncio.to_thread(self._schema.check)

    async def _check_storage(self) -> str:
        """Return the use of the storage budget.

        Raises:
            Unhealthy: It is used up, so new runs are refused.
            StoreUnavailable: PostgreSQL does not answer.
        """
        use = await asyncio.to_thread(self._wiring.admission.storage_use)
        if use.is_full:
            raise Unhealthy(f"{use}: new runs and tasks are refused")
        return str(use)
