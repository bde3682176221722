"""The budget of bytes in PostgreSQL: the oldest finished runs are removed before their time while too much is stored.

Deleted rows free no disk: autovacuum makes their space usable for new rows, and the files keep their size. So the bytes
in use are counted, from the sizes that runs record at their end, once the files are larger than the budget allows.
"""

from datetime import datetime
from uuid import UUID

from citadel_common.stores.postgres import Database
from citadel_maintenance import db
from citadel_maintenance.jobs.runner import Job
from citadel_maintenance.run_retention import RunRetention
from citadel_maintenance.settings import MaintenanceSettings

KIND = "runs_over_budget"
_AT_ONCE = 500
_FIRST = UUID(int=0)
Place = tuple[datetime | None, UUID]
"""End and id of a finished run; no end before the first."""


class StorageBudget:
    """The part of `citadel.purge_runs` that keeps the budget.

    Args:
        job: The run of the task.
        database: PostgreSQL.
        settings: The budget, and sizes of batches.
        retention: Removes runs.
    """

    def __init__(self, job: Job, database: Database, settings: MaintenanceSettings, retention: RunRetention) -> None:
        self._job = job
        self._database = database
        self._budget = settings.storage
        self._limits = settings.maintenance
        self._retention = retention

    def run(self) -> bool:
        """Remove runs until the budget is kept, or count them in a dry run; return whether that was all."""
        if self._budget.max_bytes is None or not self._is_over(self._allocated()):
            return True
        if not self._measure_runs():
            return False
        finished, unfinished = self._stored()
        if not self._is_over(finished + unfinished):
            return True
        excess = finished + unfinished - self._budget.purge_to * self._budget.max_bytes
        return self._foresee(excess) if self._job.dry_run else self._free(excess)

    def _is_over(self, size: int) -> bool:
        return size > self._budget.purge_from * (self._budget.max_bytes or 0)

    def _allocated(self) -> int:
        with self._database.cursor() as cursor:
            return db.allocated_bytes(cursor)

    def _stored(self) -> tuple[int, int]:
        with self._database.cursor() as cursor:
            db.set_timeout(cursor, max(1.0, self._job.throttle.remaining))
            return db.stored_bytes(cursor)

    def _measure_runs(self) -> bool:
        """Record the bytes of runs that ended before an update which records them; return whether that was all."""
        if self._job.dry_run:
            return True
        for _ in self._job.throttle.batches():
            with self._database.cursor() as cursor:
                db.set_timeout(cursor, self._limits.statement_timeout)
                if db.measure_runs(cursor, limit=_AT_ONCE) < _AT_ONCE:
                    return True
        return False

    def _free(self, excess: float) -> bool:
        for _ in self._job.throttle.batches():
            removed, size = self._retention.remove(age=self._budget.min_age, most_bytes=excess, kind=KIND)
            excess -= size
            if excess <= 0:
                return True
            if removed == 0:
                self._note_rest(excess)
                return True
        return False

    def _foresee(self, excess: float) -> bool:
        """Count what `_free` would remove; what is past the retention has been counted already."""
        after: Place = (None, _FIRST)
        excess -= sum(counts["bytes_freed"] for counts in self._job.counters.kinds.values())
        for _ in self._job.throttle.batches():
            page = self._page(after)
            for run_id, finished_at, size in page:
                if excess <= 0:
                    return True
                excess, after = excess - size, (finished_at, run_id)
                self._job.counters.examined += 1
                self._job.counters.add(KIND, removed=1, bytes_freed=size)
            if len(page) < _AT_ONCE:
                self._note_rest(excess)
                return True
        return False

    def _page(self, after: Place) -> list[tuple[UUID, datetime, int]]:
        retention, age = self._limits.run_retention, self._budget.min_age
        with self._database.cursor() as cursor:
            return db.oldest_runs(cursor, younger_than=retention, age=age, after=after, limit=_AT_ONCE)

    def _note_rest(self, excess: float) -> None:
        if excess > 0:
            self._job.counters.notes.append(
                f"{excess / 2**20:.0f} MiB more than CITADEL_STORAGE__PURGE_TO allows are unfinished runs, or runs that"
                f" ended within {self._budget.min_age:.0f} s; at CITADEL_STORAGE__MAX_BYTES new runs are refused"
            )
