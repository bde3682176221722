"""Retention of runs: finished ones go when they are old enough, with all that belongs to them.

Steps, payloads, events, signals and the idempotency key go with their run. A sub-run goes after its parent, so that
a run that can be shown can be shown as a whole. Payloads are kept as long as their run: without them it could be
neither read nor retried. Each batch is a transaction of its own; rows that somebody has locked are passed over.
"""

from typing import Any
from uuid import UUID

import structlog
from psycopg.errors import QueryCanceled

from citadel_common.errors import StoreUnavailable
from citadel_common.stores.postgres import Cursor, Database, one
from citadel_maintenance.settings import MaintenanceFragment
from citadel_maintenance.upkeep import Job

log = structlog.get_logger(__name__)
RUNS = "runs"
FINISHED = ["succeeded", "failed", "cancelled", "timed_out"]
_OLD = "finished_at < now() - make_interval(secs => %(age)s) AND status = ANY(%(finished)s)"
_DUE = f"""
SELECT run_id, last_event FROM runs
WHERE {_OLD} AND (parent_run_id IS NULL
    OR NOT EXISTS (SELECT 1 FROM runs AS parents WHERE parents.run_id = runs.parent_run_id))
ORDER BY finished_at, run_id LIMIT %(limit)s FOR UPDATE OF runs SKIP LOCKED
"""  # noqa: S608  (constants only)
_SIZE = """
SELECT coalesce((SELECT sum(octet_length(body)) FROM payloads WHERE run_id = ANY(%(ids)s)), 0)
    + coalesce((SELECT sum(octet_length(payload)) FROM signals WHERE run_id = ANY(%(ids)s)), 0)
    + (SELECT count(*) * 150 FROM steps WHERE run_id = ANY(%(ids)s))
    + coalesce((SELECT sum(octet_length(definition) + octet_length(context) + coalesce(octet_length(output), 0)
        + last_event * 100 + 400) FROM runs WHERE run_id = ANY(%(ids)s)), 0)
"""
"""Bytes of runs: contents as stored, and the usual size of a row of a step, an event, a run."""
_DRY = f"""
WITH RECURSIVE old AS MATERIALIZED (SELECT run_id, parent_run_id FROM runs WHERE {_OLD}),
due AS (
    SELECT run_id FROM old WHERE parent_run_id IS NULL
        OR NOT EXISTS (SELECT 1 FROM runs AS parents WHERE parents.run_id = old.parent_run_id)
    UNION ALL SELECT old.run_id FROM old JOIN due ON old.parent_run_id = due.run_id
)
SELECT array_agg(run_id) FROM due
"""  # noqa: S608  (constants only)
_SIZED_AT_ONCE = 500


class RunRetention:
    """One run of the clean-up.

    Args:
        job: Pace and counts.
        database: The record.
        settings: Retention and sizes of batches.
    """

    def __init__(self, job: Job, database: Database, settings: MaintenanceFragment) -> None:
        self._job = job
        self._database = database
        self._settings = settings
        self._batch_runs = settings.run_batch
        self._age = {"age": settings.run_retention, "finished": FINISHED}

    def run(self) -> bool:
        """Removes, or counts, what is due; whether that was all."""
        return self._count() if self._job.dry_run else self._purge()

    def _purge(self) -> bool:
        while self._job.pace.goes_on():
            with self._job.pace.batch():
                removed = self._batch()
            if removed == 0:
                return True
        return False

    def _batch(self) -> int:
        """Removes some runs; after a batch that took too long, one at a time, each with all the time that is left."""
        try:
            return self._remove(self._batch_runs, self._settings.statement_timeout)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, QueryCanceled):
                raise
        log.warning("runs_removed_singly", timeout=self._settings.statement_timeout)
        self._batch_runs = 1
        return self._remove(1, max(1.0, self._job.pace.remaining))

    def _remove(self, runs: int, timeout: float) -> int:
        with self._database.cursor() as cursor:
            _limit(cursor, timeout)
            cursor.execute(_DUE, self._age | {"limit": runs})
            ids = _within(cursor.fetchall(), self._settings.run_batch_events)
            size = _size(cursor, ids)
            cursor.execute("DELETE FROM runs WHERE run_id = ANY(%s)", [ids])
        self._tell(len(ids), size)
        return len(ids)

    def _count(self) -> bool:
        with self._database.cursor() as cursor:
            _limit(cursor, max(1.0, self._job.pace.remaining))
            cursor.execute(_DRY, self._age)
            ids: list[UUID] = one(cursor)[0] or []
        while ids:
            if not self._job.pace.goes_on():
                return False
            some, ids = ids[:_SIZED_AT_ONCE], ids[_SIZED_AT_ONCE:]
            with self._job.pace.batch(), self._database.cursor() as cursor:
                self._tell(len(some), _size(cursor, some))
        return True

    def _tell(self, runs: int, size: int) -> None:
        self._job.tallies.examined += runs
        tally = self._job.tallies.of(RUNS)
        tally.examined += runs
        tally.removed += runs
        tally.bytes_freed += size


def _limit(cursor: Cursor, seconds: float) -> None:
    """Big runs take longer to remove than other statements may take."""
    cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(int(seconds * 1000))])


def _size(cursor: Cursor, ids: list[UUID]) -> int:
    cursor.execute(_SIZE, {"ids": ids})
    return int(one(cursor)[0])


def _within(rows: list[Any], events: int) -> list[UUID]:
    """The first runs whose events are not too many together, one at least."""
    chosen: list[UUID] = []
    for run_id, count in rows:
        events -= count
        if chosen and events < 0:
            break
        chosen.append(run_id)
    return chosen
