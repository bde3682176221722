"""The tasks of the maintenance queue: unpack, delegate, return."""

from typing import TYPE_CHECKING

from citadel_common.stores.postgres import Database
from citadel_common.tasks.base import TaskContext, register
from citadel_contracts import (
    ADVISE_VACUUM,
    CLEANUP_EXPIRED_CACHE,
    PURGE_DEAD_LETTERS,
    PURGE_ORPHANS,
    PURGE_RESULTS,
    PURGE_RUNS,
)
from citadel_contracts.maintenance import (
    AdviseVacuum,
    AdviseVacuumResult,
    CacheStatistics,
    CleanupExpiredCache,
    CleanupExpiredCacheResult,
    MaintenanceReport,
    PurgeDeadLetters,
    PurgeOrphans,
    PurgeResults,
    PurgeRuns,
)
from citadel_maintenance.cache.cleanup import CacheCleanup
from citadel_maintenance.cache.models import LiveModels
from citadel_maintenance.letters import LetterExpiry
from citadel_maintenance.orphans import OrphanCleanup
from citadel_maintenance.record.retention import RunRetention
from citadel_maintenance.record.vacuum import Table, advice_on, read_tables
from citadel_maintenance.register import WorkerRegister
from citadel_maintenance.results import ResultCleanup
from citadel_maintenance.settings import MaintenanceSettings
from citadel_maintenance.stores import Stores
from citadel_maintenance.upkeep import Job, Upkeep

if TYPE_CHECKING:
    from celery import Celery

NOTHING: CacheStatistics = {"entries": 0, "bytes": 0, "models": {}, "complete": False}


class MaintenanceTasks:
    """The handlers.

    Args:
        upkeep: The frame that they run in.
        stores: The Redis servers.
        database: The record.
        settings: What is kept, and for how long.
    """

    def __init__(self, upkeep: Upkeep, stores: Stores, database: Database, settings: MaintenanceSettings) -> None:
        self._upkeep = upkeep
        self._stores = stores
        self._database = database
        self._settings = settings
        self._limits = settings.maintenance

    def register(self, app: "Celery") -> None:
        """Registers them with an app."""
        register(app, CLEANUP_EXPIRED_CACHE, self.cleanup_expired_cache)
        register(app, PURGE_RUNS, self.purge_runs)
        register(app, PURGE_RESULTS, self.purge_results)
        register(app, PURGE_DEAD_LETTERS, self.purge_dead_letters)
        register(app, PURGE_ORPHANS, self.purge_orphans)
        register(app, ADVISE_VACUUM, self.advise_vacuum)

    def cleanup_expired_cache(self, payload: CleanupExpiredCache, context: TaskContext) -> CleanupExpiredCacheResult:
        """Removes cache entries that nobody can ask for, and those over the budget; counts the others."""
        found = NOTHING

        def work(job: Job) -> bool:
            nonlocal found
            models = LiveModels(
                self._stores.results,
                keep=[self._settings.default_model, *self._limits.keep_models],
                grace=self._limits.model_grace,
                record=not job.dry_run,
            )
            budget, count = self._limits.cache_max_bytes, self._limits.scan_count
            cleanup = CacheCleanup(job, self._stores.cache, models, count=count, budget=budget)
            finished = cleanup.run()
            found = cleanup.statistics
            return finished

        report = self._upkeep.run(CLEANUP_EXPIRED_CACHE.name, payload, context, work)
        return {**report, "statistics": found}

    def purge_runs(self, payload: PurgeRuns, context: TaskContext) -> MaintenanceReport:
        """Removes finished runs that are older than the retention."""
        return self._upkeep.run(
            PURGE_RUNS.name, payload, context, lambda job: RunRetention(job, self._database, self._limits).run()
        )

    def purge_results(self, payload: PurgeResults, context: TaskContext) -> MaintenanceReport:
        """Ends the records of accepted tasks that nothing else would end."""
        count = self._limits.scan_count
        return self._upkeep.run(
            PURGE_RESULTS.name,
            payload,
            context,
            lambda job: ResultCleanup(job, self._stores.results, count=count).run(),
        )

    def purge_dead_letters(self, payload: PurgeDeadLetters, context: TaskContext) -> MaintenanceReport:
        """Removes dead letters past their time."""
        ttl = self._settings.worker.dead_letter_ttl
        return self._upkeep.run(
            PURGE_DEAD_LETTERS.name,
            payload,
            context,
            lambda job: LetterExpiry(job, self._stores.results, ttl=ttl).run(),
        )

    def purge_orphans(self, payload: PurgeOrphans, context: TaskContext) -> MaintenanceReport:
        """Removes what nobody will ask for again, and bounds what should expire."""

        def work(job: Job) -> bool:
            dead_after, grace = self._settings.worker.dead_after, self._limits.worker_grace
            workers = WorkerRegister(job, self._stores.broker, dead_after=dead_after, grace=grace)
            return OrphanCleanup(job, self._stores.queues, workers, count=self._limits.scan_count).run()

        return self._upkeep.run(PURGE_ORPHANS.name, payload, context, work)

    def advise_vacuum(self, payload: AdviseVacuum, context: TaskContext) -> AdviseVacuumResult:
        """Looks at PostgreSQL's statistics and says what would do the tables good."""
        tables: list[Table] = []

        def work(job: Job) -> bool:
            tables.extend(read_tables(self._database))
            job.tallies.examined += len(tables)
            return True

        report = self._upkeep.run(ADVISE_VACUUM.name, payload, context, work)
        return {
            **report,
            "advice": [sentence for table in tables for sentence in advice_on(table)],
            "tables": [table.figures() for table in tables],
        }
