"""Handlers of the maintenance queue's tasks."""

from typing import TYPE_CHECKING

from citadel_common.stores.postgres import Database
from citadel_common.tasks.base import TaskContext, register
from citadel_common.telemetry import Metrics
from citadel_contracts import (
    ADVISE_VACUUM,
    CLEANUP_EXPIRED_CACHE,
    PURGE_DEAD_LETTERS,
    PURGE_ORPHANS,
    PURGE_RESULTS,
    PURGE_RUNS,
    REROUTE_MESSAGES,
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
    RerouteMessages,
)
from citadel_maintenance import db
from citadel_maintenance.accepted_tasks import AcceptedTaskCleanup
from citadel_maintenance.cache.cleanup import CacheCleanup
from citadel_maintenance.cache.models import LiveModels
from citadel_maintenance.dead_letters import DeadLetterCleanup
from citadel_maintenance.jobs.runner import Job, JobRunner
from citadel_maintenance.orphans import OrphanCleanup
from citadel_maintenance.rerouting.job import Rerouting
from citadel_maintenance.run_retention import RunRetention
from citadel_maintenance.settings import MaintenanceSettings
from citadel_maintenance.storage_budget import StorageBudget
from citadel_maintenance.stores import Stores
from citadel_maintenance.timers import TimerCleanup
from citadel_maintenance.vacuum_advice import advice_on
from citadel_maintenance.worker_registry import WorkerRegistryCleanup

if TYPE_CHECKING:
    from celery import Celery

KEYS_FOR_LISTS = 10
"""Times as many keys per batch where Redis returns only the few of them that are lists."""
_NO_STATISTICS: CacheStatistics = {"entries": 0, "bytes": 0, "models": {}, "complete": False}


class MaintenanceTasks:
    """Handlers of the tasks.

    Args:
        runner: Runs their work.
        stores: The Redis servers.
        database: PostgreSQL.
        settings: What is kept, and for how long.
        metrics: Where what they do is counted.
    """

    def __init__(
        self, runner: JobRunner, stores: Stores, database: Database, settings: MaintenanceSettings, metrics: Metrics
    ) -> None:
        self._runner = runner
        self._stores = stores
        self._database = database
        self._settings = settings
        self._metrics = metrics
        self._limits = settings.maintenance

    def register(self, app: "Celery") -> None:
        """Register the handlers with an app."""
        register(app, CLEANUP_EXPIRED_CACHE, self.cleanup_expired_cache)
        register(app, PURGE_RUNS, self.purge_runs)
        register(app, PURGE_RESULTS, self.purge_results)
        register(app, PURGE_DEAD_LETTERS, self.purge_dead_letters)
        register(app, PURGE_ORPHANS, self.purge_orphans)
        register(app, REROUTE_MESSAGES, self.reroute_messages)
        register(app, ADVISE_VACUUM, self.advise_vacuum)

    def cleanup_expired_cache(self, payload: CleanupExpiredCache, context: TaskContext) -> CleanupExpiredCacheResult:
        """Remove cache entries that nobody can ask for, and those over the budget; count the others."""
        statistics = _NO_STATISTICS

        def work(job: Job) -> bool:
            nonlocal statistics
            models = LiveModels(
                self._stores.results,
                keep=[self._settings.default_model, *self._limits.keep_models],
                grace=self._limits.model_grace,
                record=not job.dry_run,
            )
            budget, count = self._limits.cache_max_bytes, self._limits.scan_count
            cleanup = CacheCleanup(job, self._stores.cache, models, count=count, budget=budget)
            finished = cleanup.run()
            statistics = cleanup.statistics
            return finished

        report = self._runner.run(CLEANUP_EXPIRED_CACHE.name, payload, context, work)
        return {**report, "statistics": statistics}

    def purge_runs(self, payload: PurgeRuns, context: TaskContext) -> MaintenanceReport:
        """Remove finished runs that are older than the retention, and the oldest of all while too much is stored."""

        def work(job: Job) -> bool:
            retention = RunRetention(job, self._database, self._limits)
            return retention.run() and StorageBudget(job, self._database, self._settings, retention).run()

        return self._runner.run(PURGE_RUNS.name, payload, context, work)

    def purge_results(self, payload: PurgeResults, context: TaskContext) -> MaintenanceReport:
        """Remove records of accepted tasks that nothing else would remove."""
        store, count = self._stores.results, self._limits.scan_count
        return self._runner.run(
            PURGE_RESULTS.name, payload, context, lambda job: AcceptedTaskCleanup(job, store, count=count).run()
        )

    def purge_dead_letters(self, payload: PurgeDeadLetters, context: TaskContext) -> MaintenanceReport:
        """Remove expired dead letters."""
        store, ttl = self._stores.results, self._settings.worker.dead_letter_ttl
        return self._runner.run(
            PURGE_DEAD_LETTERS.name, payload, context, lambda job: DeadLetterCleanup(job, store, ttl=ttl).run()
        )

    def purge_orphans(self, payload: PurgeOrphans, context: TaskContext) -> MaintenanceReport:
        """Remove keys that nobody will use again, set missing times to live, and mend timers."""

        def work(job: Job) -> bool:
            dead_after, grace = self._settings.worker.dead_after, self._limits.worker_grace
            broker, count = self._stores.broker, self._limits.scan_count
            workers = WorkerRegistryCleanup(job, broker, dead_after=dead_after, grace=grace)
            orphans = OrphanCleanup(job, self._stores.queues, workers, count=count)
            return orphans.run() and TimerCleanup(job, broker, count=count).run()

        return self._runner.run(PURGE_ORPHANS.name, payload, context, work)

    def reroute_messages(self, payload: RerouteMessages, context: TaskContext) -> MaintenanceReport:
        """Find lists that no worker reads, and move their messages into the lanes of their queues."""

        def work(job: Job) -> bool:
            count = self._limits.scan_count * KEYS_FOR_LISTS
            return Rerouting(job, self._stores.broker, self._metrics, count=count).run()

        return self._runner.run(REROUTE_MESSAGES.name, payload, context, work)

    def advise_vacuum(self, payload: AdviseVacuum, context: TaskContext) -> AdviseVacuumResult:
        """Read PostgreSQL's statistics and say what its tables need; change nothing."""
        tables: list[db.Table] = []

        def work(job: Job) -> bool:
            tables.extend(db.read_tables(self._database))
            job.counters.examined += len(tables)
            return True

        report = self._runner.run(ADVISE_VACUUM.name, payload, context, work)
        return {
            **report,
            "advice": [sentence for table in tables for sentence in advice_on(table)],
            "tables": [table.stats() for table in tables],
        }
