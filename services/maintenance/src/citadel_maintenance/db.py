"""Every SQL statement of maintenance: removal of old runs, and statistics of tables."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from citadel_common.stores.postgres import Cursor, Database, one
from citadel_contracts.maintenance import TableStats
from citadel_contracts.runs import FINISHED

_OLD = "finished_at < now() - make_interval(secs => %(age)s) AND status = ANY(%(finished)s)"
# A sub-run is due only once its parent is gone. SKIP LOCKED: a run that is being retried or read for update is left
# for the next batch, and cannot block this one.
_DUE = f"""
SELECT run_id, last_event, coalesce(bytes, bytes_of_runs(ARRAY[run_id])) FROM runs
WHERE {_OLD} AND (parent_run_id IS NULL
    OR NOT EXISTS (SELECT 1 FROM runs AS parents WHERE parents.run_id = runs.parent_run_id))
ORDER BY finished_at, run_id LIMIT %(limit)s FOR UPDATE OF runs SKIP LOCKED
"""  # noqa: S608  (constants only)
# What repeated batches would remove: a parent's removal makes its old sub-runs due.
_ALL_DUE = f"""
WITH RECURSIVE old AS MATERIALIZED (SELECT run_id, parent_run_id FROM runs WHERE {_OLD}),
due AS (
    SELECT run_id FROM old WHERE parent_run_id IS NULL
        OR NOT EXISTS (SELECT 1 FROM runs AS parents WHERE parents.run_id = old.parent_run_id)
    UNION ALL SELECT old.run_id FROM old JOIN due ON old.parent_run_id = due.run_id
)
SELECT array_agg(run_id) FROM due
"""  # noqa: S608  (constants only)
# Without the parents' condition: a dry run counts sub-runs beside their parents, which go first.
_OLDEST = f"""
SELECT run_id, finished_at, coalesce(bytes, bytes_of_runs(ARRAY[run_id])) FROM runs WHERE {_OLD}
    AND (finished_at, run_id) > (coalesce(%(after)s, now() - make_interval(secs => %(oldest)s)), %(after_id)s)
ORDER BY finished_at, run_id LIMIT %(limit)s
"""  # noqa: S608  (constants only)
_MEASURE = """
UPDATE runs SET bytes = bytes_of_runs(ARRAY[run_id]) WHERE run_id IN (
    SELECT run_id FROM runs WHERE finished_at IS NOT NULL AND bytes IS NULL
    ORDER BY finished_at LIMIT %s FOR UPDATE SKIP LOCKED)
"""
# 28 bytes: a row's header and its pointer.
_TABLES = """
SELECT stats.relname, stats.n_live_tup, stats.n_dead_tup,
    pg_total_relation_size(stats.relid), pg_relation_size(stats.relid),
    greatest(stats.last_vacuum, stats.last_autovacuum), greatest(stats.last_analyze, stats.last_autoanalyze),
    coalesce((SELECT sum(avg_width * (1 - null_frac)) FROM pg_stats
        WHERE pg_stats.schemaname = stats.schemaname AND pg_stats.tablename = stats.relname), 0) + 28,
    age(classes.relfrozenxid)::float / current_setting('autovacuum_freeze_max_age')::float,
    current_setting('autovacuum')::boolean
        AND NOT coalesce('autovacuum_enabled=false' = ANY(classes.reloptions), false)
FROM pg_stat_user_tables AS stats JOIN pg_class AS classes ON classes.oid = stats.relid
WHERE stats.schemaname = ANY(current_schemas(false))
ORDER BY stats.relname
"""


def set_timeout(cursor: Cursor, seconds: float) -> None:
    """Set the statement timeout of the transaction: removing big runs takes longer than other statements may."""
    cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(int(seconds * 1000))])


def lock_due_runs(cursor: Cursor, *, age: float, limit: int) -> list[tuple[UUID, int, int]]:
    """Lock the runs that finished longest ago and are due; return their ids, numbers of events, and bytes.

    Args:
        cursor: The transaction's cursor.
        age: Seconds since the end from which a run is due.
        limit: Runs at most.
    """
    return cursor.execute(_DUE, {"age": age, "finished": list(FINISHED), "limit": limit}).fetchall()


def all_due_runs(cursor: Cursor, *, age: float) -> list[UUID]:
    """Return the ids of all runs that repeated removals would reach, without locking them."""
    cursor.execute(_ALL_DUE, {"age": age, "finished": list(FINISHED)})
    return one(cursor)[0] or []


def size_of_runs(cursor: Cursor, ids: list[UUID]) -> int:
    """Return the bytes that runs take with all their rows (estimated)."""
    cursor.execute(
        "SELECT coalesce(sum(coalesce(bytes, bytes_of_runs(ARRAY[run_id]))), 0) FROM runs WHERE run_id = ANY(%s)", [ids]
    )
    return int(one(cursor)[0])


def delete_runs(cursor: Cursor, ids: list[UUID]) -> None:
    """Delete runs; the rows of other tables follow by their foreign keys."""
    cursor.execute("DELETE FROM runs WHERE run_id = ANY(%s)", [ids])


def oldest_runs(
    cursor: Cursor, *, younger_than: float, age: float, after: tuple[datetime | None, UUID], limit: int
) -> list[tuple[UUID, datetime, int]]:
    """Return id, end and bytes of the next finished runs, oldest first, without locking them.

    Args:
        cursor: The transaction's cursor.
        younger_than: Seconds since the end up to which runs are returned.
        age: Seconds since the end from which they are.
        after: End and id of the last run of the page before; no end for the first page.
        limit: Runs at most.
    """
    values = {"age": age, "finished": list(FINISHED), "oldest": younger_than, "limit": limit}
    return cursor.execute(_OLDEST, values | {"after": after[0], "after_id": after[1]}).fetchall()


def measure_runs(cursor: Cursor, *, limit: int) -> int:
    """Record the bytes of runs that ended before these were recorded; return the number of the runs."""
    return cursor.execute(_MEASURE, [limit]).rowcount


def allocated_bytes(cursor: Cursor) -> int:
    """Return the bytes that the tables take on disk, in use or not."""
    cursor.execute("SELECT allocated_bytes()")
    return int(one(cursor)[0])


def stored_bytes(cursor: Cursor) -> tuple[int, int]:
    """Return the bytes that finished runs hold, and those of unfinished runs and accepted tasks."""
    cursor.execute("SELECT finished, unfinished FROM stored_bytes()")
    finished, unfinished = one(cursor)
    return int(finished), int(unfinished)


@dataclass(frozen=True, kw_only=True)
class Table:
    """PostgreSQL's statistics of one table.

    Attributes:
        name: Its name.
        live: Live rows, as PostgreSQL counts them.
        dead: Dead rows, which a vacuum could free.
        total_bytes: Size with indexes and long values.
        heap_bytes: Size of the rows alone.
        vacuumed_at: Time of the last vacuum, manual or automatic.
        analyzed_at: Time of the last analysis.
        row_bytes: Mean width of a row, header included.
        age: Age of its oldest transaction, as a share of the age at which PostgreSQL forces a vacuum.
        autovacuum: Whether PostgreSQL vacuums it by itself.
    """

    name: str
    live: int
    dead: int
    total_bytes: int
    heap_bytes: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None
    row_bytes: float
    age: float
    autovacuum: bool

    @property
    def unused_bytes(self) -> int:
        """Bytes of the heap that live rows do not need (estimated); 0 if the table was never analyzed."""
        if self.analyzed_at is None:
            return 0
        return max(0, round(self.heap_bytes - self.live * self.row_bytes))

    def stats(self) -> TableStats:
        """Return the table as reports show it."""
        return {
            "table": self.name,
            "live_rows": self.live,
            "dead_rows": self.dead,
            "total_bytes": self.total_bytes,
            "unused_bytes": self.unused_bytes,
            "last_vacuum": _iso(self.vacuumed_at),
            "last_analyze": _iso(self.analyzed_at),
        }


def read_tables(database: Database) -> list[Table]:
    """Return the statistics of all tables of the schema.

    Raises:
        StoreUnavailable: PostgreSQL does not answer.
    """
    with database.cursor() as cursor:
        rows: list[tuple[Any, ...]] = cursor.execute(_TABLES).fetchall()
    return [Table(**dict(zip(Table.__dataclass_fields__, row, strict=True))) for row in rows]


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
