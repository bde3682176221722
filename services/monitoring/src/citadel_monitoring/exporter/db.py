"""Metrics of runs and steps from PostgreSQL: every SQL statement of monitoring.

All queries are indexed and bounded, so a long history of runs does not slow down a scrape.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from pydantic import SecretStr

from citadel_common.settings.postgres import PostgresSettings
from citadel_common.stores.db import PostgresConnection, open_connection
from citadel_common.stores.postgres import GRACE
from citadel_common.stores.postgres_target import PostgresTarget
from citadel_contracts.runs import FINISHED, UNFINISHED
from citadel_monitoring.exporter import metrics
from citadel_monitoring.exporter.metrics import Sample
from citadel_monitoring.exporter.sources import Samples

# Only an index scan stops at a LIMIT whatever the statistics say, so the planner may use no other.
INDEXED = {"enable_seqscan": "off", "enable_bitmapscan": "off"}
MOST_UNFINISHED = 100_000
MOST_FINISHED = 10_000
MOST_OVERDUE = 10_000
MOST_RECENT = 10_000

_COUNT = "SELECT count(*) FROM (SELECT FROM runs WHERE status = %s LIMIT %s) AS found"
# By the planner's statistics: the table's rows, times the share of each common state.
_ESTIMATE = """
    SELECT value, frequency * greatest(reltuples, 0)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        JOIN pg_stats ON schemaname = nspname AND tablename = relname AND attname = 'status',
        unnest(most_common_vals::text::text[], most_common_freqs) AS common (value, frequency)
    WHERE pg_class.oid = 'runs'::regclass
"""
_SUBMITTED = "SELECT pg_stat_get_tuples_inserted('runs'::regclass)"
_RECENT = """
    SELECT status, count(*) FROM (
        SELECT status FROM runs WHERE created_at > now() - interval '10 minutes' ORDER BY created_at DESC LIMIT %s
    ) AS recent GROUP BY status
"""
_OLDEST = """
    SELECT extract(epoch FROM now() - created_at)::float FROM runs WHERE status = %s ORDER BY created_at LIMIT 1
"""
_LEASED = """
    SELECT status, count(*) FROM (SELECT status FROM steps WHERE status IN ('ready', 'running') LIMIT %s) AS found
    GROUP BY status
"""
_WAITING = """
    SELECT count(*) FROM (SELECT FROM steps WHERE status = 'waiting' AND due_at IS NOT NULL LIMIT %s) AS found
"""
_IN_QUEUE = """
    SELECT waiting_for, count(*) FROM (
        SELECT waiting_for FROM steps WHERE status = 'waiting' AND waiting_for IS NOT NULL LIMIT %s
    ) AS found GROUP BY waiting_for
"""
_LATE: Mapping[str, LiteralString] = {
    "lease": """
        SELECT count(*), extract(epoch FROM now() - min(lease_until))::float FROM (
            SELECT lease_until FROM steps WHERE status IN ('ready', 'running') AND lease_until < now()
                AND EXISTS (SELECT FROM runs WHERE runs.run_id = steps.run_id AND status IN ('queued', 'running'))
            ORDER BY lease_until LIMIT %s
        ) AS late
    """,
    "due": """
        SELECT count(*), extract(epoch FROM now() - min(due_at))::float FROM (
            SELECT due_at FROM steps WHERE status = 'waiting' AND due_at <= now()
                AND EXISTS (SELECT FROM runs WHERE runs.run_id = steps.run_id AND status IN ('queued', 'running'))
            ORDER BY due_at LIMIT %s
        ) AS late
    """,
}
_ALLOCATED = """
    SELECT sum(pg_total_relation_size(to_regclass(name)))
    FROM unnest(ARRAY['runs', 'steps', 'payloads', 'events', 'signals', 'accepted_tasks']) AS name
"""
_STORED = "SELECT finished, unfinished FROM stored_bytes()"
MEASURED_EVERY = 60.0
"""Seconds between two measures of the bytes in use, which read an index of all finished runs."""
# reserved_connections exists from PostgreSQL 16 on.
_CONNECTIONS = """
    SELECT (SELECT sum(numbackends) FROM pg_stat_database), current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int
"""
_DEADLINE = """
    SELECT extract(epoch FROM now() - deadline_at)::float FROM runs
    WHERE finished_at IS NULL AND deadline_at < now() ORDER BY deadline_at LIMIT 1
"""


class DatabaseReader:
    """Reader of runs and steps, over one connection that stays open.

    Args:
        dsn: PostgreSQL's URL.
        settings: Connection settings.
        timeout: Seconds a statement may take.
        most_finished: Finished runs of one state that are counted exactly.
        max_bytes: Limit of the bytes in use, if there is one.
    """

    def __init__(
        self,
        dsn: SecretStr,
        settings: PostgresSettings,
        *,
        timeout: float,
        most_finished: int = MOST_FINISHED,
        max_bytes: int | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._stored: list[Sample] = []
        self._measured_at = float("-inf")
        self._most_finished = most_finished
        self._patience = timeout + GRACE
        self._target = PostgresTarget.of(
            dsn,
            name="exporter",
            search_path=settings.search_path,
            timeout=timeout,
            connect_timeout=settings.connect_timeout,
            settings=INDEXED,
        )
        self._connection: PostgresConnection | None = None

    def read(self) -> Samples:
        """Return runs and steps by state, and how far the sweeper is behind.

        Raises:
            psycopg.Error: PostgreSQL does not answer, or not in time.
        """
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connection = open_connection(self._target, patience=self._patience)
            connection.prepare_threshold = None
        try:
            with connection.begin(), connection.cursor() as cursor:
                return [*_runs(cursor, self._most_finished), *_steps(cursor), *self._storage(cursor)]
        except BaseException:
            connection.close()
            raise

    def _storage(self, cursor: "psycopg.Cursor[Any]") -> Iterator[Sample]:
        yield Sample(metrics.ALLOCATED, (), _number(cursor, _ALLOCATED))
        yield Sample(metrics.STORAGE_LIMIT, (), self._max_bytes or 0)
        ((used, allowed),) = _rows(cursor, _CONNECTIONS)
        yield Sample(metrics.CONNECTIONS, (), float(used))
        yield Sample(metrics.CONNECTIONS_LIMIT, (), float(allowed))
        if time.monotonic() - self._measured_at > MEASURED_EVERY:
            self._measured_at = time.monotonic()
            self._stored = _stored(cursor)
        yield from self._stored


def _runs(cursor: "psycopg.Cursor[Any]", most_finished: int) -> Iterator[Sample]:
    for status in UNFINISHED:
        yield Sample(metrics.RUNS, (status,), _number(cursor, _COUNT, status, MOST_UNFINISHED))
        yield Sample(metrics.OLDEST_RUN, (status,), max(0.0, _number(cursor, _OLDEST, status)))
    yield from _finished(cursor, most_finished)
    yield Sample(metrics.RUNS_SUBMITTED, (), _number(cursor, _SUBMITTED))
    recent = dict(_rows(cursor, _RECENT, MOST_RECENT))
    yield from (Sample(metrics.RECENT_RUNS, (status,), recent.get(status, 0)) for status in (*UNFINISHED, *FINISHED))


def _stored(cursor: "psycopg.Cursor[Any]") -> list[Sample]:
    """Return the bytes in use; nothing where counting takes longer than a statement may, or a migration is missing."""
    try:
        with cursor.connection.transaction():
            ((finished, unfinished),) = _rows(cursor, _STORED)
    except (psycopg.errors.QueryCanceled, psycopg.errors.UndefinedFunction):
        return []
    states = {"finished": finished, "unfinished": unfinished}
    return [Sample(metrics.STORED, (state,), float(size)) for state, size in states.items()]


def _finished(cursor: "psycopg.Cursor[Any]", most: int) -> Iterator[Sample]:
    counts = {status: _number(cursor, _COUNT, status, most) for status in FINISHED}
    estimates = dict(_rows(cursor, _ESTIMATE)) if max(counts.values()) >= most else {}
    for status, count in counts.items():
        estimate = round(estimates.get(status, 0)) if count >= most else 0
        yield Sample(metrics.RUNS, (status,), max(count, estimate))


def _steps(cursor: "psycopg.Cursor[Any]") -> Iterator[Sample]:
    leased = dict(_rows(cursor, _LEASED, MOST_UNFINISHED))
    yield from (Sample(metrics.STEPS, (status,), leased.get(status, 0)) for status in ("ready", "running"))
    yield Sample(metrics.STEPS, ("waiting",), _number(cursor, _WAITING, MOST_UNFINISHED))
    for reason, count in _rows(cursor, _IN_QUEUE, MOST_UNFINISHED):
        yield Sample(metrics.WAITING_STEPS, (reason,), count)
    for kind, query in _LATE.items():
        ((count, lag),) = _rows(cursor, query, MOST_OVERDUE)
        yield Sample(metrics.OVERDUE, (kind,), count)
        yield Sample(metrics.SWEEP_LAG, (kind,), lag or 0.0)
    yield Sample(metrics.SWEEP_LAG, ("deadline",), _number(cursor, _DEADLINE))


def _rows(cursor: "psycopg.Cursor[Any]", query: LiteralString, *values: Any) -> Sequence[tuple[Any, ...]]:
    return cursor.execute(query, values or None).fetchall()


def _number(cursor: "psycopg.Cursor[Any]", query: LiteralString, *values: Any) -> float:
    """Return the single value of a query; 0 if it has no row."""
    rows = _rows(cursor, query, *values)
    return float(rows[0][0] or 0) if rows else 0.0
