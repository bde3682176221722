"""Retention of runs: removal of finished runs once they are old enough.

Steps, payloads, events, signals and the idempotency key go with their run. A sub-run goes after its parent, so that a
run that can be shown can be shown completely. Payloads are kept as long as their run, which could be neither read nor
retried without them. Each batch is one transaction; rows that somebody has locked are left for later.
"""

import functools
import math
from uuid import UUID

import structlog

from citadel_common.errors import StoreBusy
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
        return self.remove(age=self._settings.run_retention)[0]

    def remove(self, *, age: float, most_bytes: float = math.inf, kind: str = KIND) -> tuple[int, int]:
        """Remove some of the oldest runs; after a batch that took too long, one at a time, with all the time left.

        Args:
            age: Seconds since the end from which a run is removed.
            most_bytes: Bytes from which on no further run is removed.
            kind: Name of the counts in the report.

        Returns:
            The number of runs, and their bytes.
        """
        remove = functools.partial(self._remove, age=age, most_bytes=most_bytes, kind=kind)
        try:
            return remove(self._batch_size, self._settings.statement_timeout)
        except StoreBusy as error:  # a statement that took too long is one of its kinds
            log.info("batch_not_removed", error=error.message)
        log.warning("runs_removed_singly", timeout=self._settings.statement_timeout)
        self._batch_size = 1
        return remove(1, max(1.0, self._job.throttle.remaining))

    def _remove(self, runs: int, timeout: float, *, age: float, most_bytes: float, kind: str) -> tuple[int, int]:
        with self._database.cursor() as cursor:
            db.set_timeout(cursor, timeout)
            due = db.lock_due_runs(cursor, age=age, limit=runs)
            chosen = _within(due, self._settings.run_batch_events, most_bytes)
            db.delete_runs(cursor, [run_id for run_id, _, _ in chosen])
        size = sum(size for _, _, size in chosen)
        self._count(len(chosen), size, kind)
        return len(chosen), size

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

    def _count(self, runs: int, size: int, kind: str = KIND) -> None:
        self._job.counters.examined += runs
        self._job.counters.add(kind, found=runs, removed=runs, bytes_freed=size)


def _within(due: list[tuple[UUID, int, int]], events: int, most_bytes: float) -> list[tuple[UUID, int, int]]:
    """Return the first runs, at least one, that have at most `events` events together, up to `most_bytes`."""
    chosen: list[tuple[UUID, int, int]] = []
    for run in due:
        events -= run[1]
        if chosen and (events < 0 or most_bytes <= 0):
            break
        chosen.append(run)
        most_bytes -= run[2]
    return chosen
