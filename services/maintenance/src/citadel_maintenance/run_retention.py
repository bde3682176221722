"""Retention of runs: removal of finished runs once they are old enough.

Steps, payloads, events, signals and the idempotency key go with their run. A sub-run goes after its parent, so that a
run that can be shown can be shown completely. Payloads are kept as long as their run, which could be neither read nor
retried without them. Each batch is one transaction; rows that somebody has locked are left for later.
"""

from uuid import UUID

import structlog
from psycopg.errors import QueryCanceled

from citadel_common.errors import StoreUnavailable
from citadel_common.stores.postgres import Database
from citadel_maintenance import db
from citadel_maintenance.jobs.runner import Job
from citadel_maintenance.settings import MaintenanceFragment

log = structlog.get_logger(__name__)
KIND = "runs"
_SIZED_AT_ONCE = 500


class RunRetention:
    """One run of `citadel.purge_runs`.

    Args:
        job: The run of the task.
        database: PostgreSQL.
        settings: Retention, and sizes of batches.
    """

    def __init__(self, job: Job, database: Database, settings: MaintenanceFragment) -> None:
        self._job = job
        self._database = database
        self._settings = settings
        self._batch_size = settings.run_batch

    def run(self) -> bool:
        """Remove the runs that are due, or count them in a dry run; return whether that was all."""
        if self._job.dry_run:
            return self._count_due()
        return any(self._remove_batch() == 0 for _ in self._job.throttle.batches())

    def _remove_batch(self) -> int:
        """Remove some runs; after a batch that took too long, one at a time, with all the time that is left."""
        try:
            return self._remove(self._batch_size, self._settings.statement_timeout)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, QueryCanceled):
                raise
        log.warning("runs_removed_singly", timeout=self._settings.statement_timeout)
        self._batch_size = 1
        return self._remove(1, max(1.0, self._job.throttle.remaining))

    def _remove(self, runs: int, timeout: float) -> int:
        with self._database.cursor() as cursor:
            db.set_timeout(cursor, timeout)
            due = db.lock_due_runs(cursor, age=self._settings.run_retention, limit=runs)
            ids = _within(due, self._settings.run_batch_events)
            size = db.size_of_runs(cursor, ids)
            db.delete_runs(cursor, ids)
        self._count(len(ids), size)
        return len(ids)

    def _count_due(self) -> bool:
        with self._database.cursor() as cursor:
            db.set_timeout(cursor, max(1.0, self._job.throttle.remaining))
            ids = db.all_due_runs(cursor, age=self._settings.run_retention)
        if not ids:
            return True
        for _ in self._job.throttle.batches():
            some, ids = ids[:_SIZED_AT_ONCE], ids[_SIZED_AT_ONCE:]
            with self._database.cursor() as cursor:
                self._count(len(some), db.size_of_runs(cursor, some))
            if not ids:
                return True
        return False

    def _count(self, runs: int, size: int) -> None:
        self._job.counters.examined += runs
        self._job.counters.add(KIND, found=runs, removed=runs, bytes_freed=size)


def _within(due: list[tuple[UUID, int]], events: int) -> list[UUID]:
    """Return the first runs that have at most `events` events together, and at least one run."""
    chosen: list[UUID] = []
    for run_id, count in due:
        events -= count
        if chosen and events < 0:
            break
        chosen.append(run_id)
    return chosen
