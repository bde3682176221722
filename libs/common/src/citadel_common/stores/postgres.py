"""Connections to PostgreSQL: a bounded pool, a timeout on each statement, JSON by orjson."""

import functools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any, ParamSpec, TypeVar

import orjson
import psycopg
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg_pool import ConnectionPool, PoolTimeout
from pydantic import SecretStr

from citadel_common.deadline import Deadline
from citadel_common.errors import CitadelError, NotFound, StoreConflict, StoreFull
from citadel_common.memory import has_taken_much
from citadel_common.settings.postgres import PostgresSettings
from citadel_common.stores.db import PostgresConnection, connection_class
from citadel_common.stores.postgres_errors import Failures, Kind, kind_of
from citadel_common.stores.postgres_target import PostgresTarget
from citadel_common.stores.postgres_watch import PostgresWatch
from citadel_common.telemetry import NULL_METRICS, Metrics, spans, tracing
from citadel_common.telemetry.spans import TRANSACTION

Cursor = psycopg.Cursor[Any]
Row = tuple[Any, ...]
GRACE = 2.0
"""Seconds that the server's own timeouts may be late before the client stops waiting."""
LOOK = 0.5
"""Seconds between two looks whether the server is down, while a caller waits for a connection."""
REPETITIONS = 4
"""Repetitions of a transaction that another one was in the way of."""
PAUSE = 0.02
"""Seconds before the first of them, at most; doubled each time."""
LONGEST = 2.0
"""Seconds after which a transaction that has waited for a lock is not repeated."""
P = ParamSpec("P")
T = TypeVar("T")


def one(cursor: Cursor) -> Row:
    """Return the row of a statement that always has one.

    Raises:
        NotFound: The row was removed meanwhile.
    """
    row: Row | None = cursor.fetchone()
    if row is None:
        raise NotFound("the run was removed meanwhile")
    return row


def _about(target: PostgresTarget) -> tracing.Attributes:
    """Return the span attributes of the database: its address, without the user."""
    parts = psycopg.conninfo.conninfo_to_dict(target.conninfo)
    port = str(parts.get("port", ""))
    return {
        spans.DB_SYSTEM: "postgresql",
        spans.DB_OPERATION: "transaction",
        spans.DB_NAMESPACE: parts.get("dbname"),
        spans.SERVER_ADDRESS: parts.get("host"),
        spans.SERVER_PORT: int(port) if port.isdecimal() else None,
    }


def target_of(dsn: SecretStr, settings: PostgresSettings, name: str) -> PostgresTarget:
    """Return the database as the settings say it is used."""
    return PostgresTarget.of(
        dsn,
        name=name,
        search_path=settings.search_path,
        timeout=settings.timeout,
        connect_timeout=settings.connect_timeout,
    )


def repeated(transaction: Callable[P, T]) -> Callable[P, T]:
    """Repeat a function that is one transaction, a few times, where another transaction was in its way.

    PostgreSQL has rolled it back: after a deadlock, a serialization failure, or a lock that was not to be had.
    """

    @functools.wraps(transaction)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        began = time.monotonic()
        for repetition in range(REPETITIONS):
            try:
                return transaction(*arguments, **options)
            except StoreConflict:
                if time.monotonic() - began > LONGEST:
                    raise
            time.sleep(random.uniform(0, PAUSE * 2**repetition))  # noqa: S311  (only spreads the transactions)
        return transaction(*arguments, **options)

    return call


def _replace_if_grown(connection: PostgresConnection) -> None:
    """Close a connection after large values: libpq keeps its buffers as large as they ever were."""
    if has_taken_much():
        connection.close()


class Database:
    """A pool of connections; thread-safe.

    Args:
        dsn: Address of PostgreSQL.
        settings: Pool size and timeouts.
        name: Application name that PostgreSQL shows.
        watched: Whether calls fail at once while PostgreSQL is known to be down; otherwise each of them waits.
        metrics: Shows whether calls fail that way.
    """

    def __init__(
        self,
        dsn: SecretStr,
        settings: PostgresSettings,
        *,
        name: str,
        watched: bool = False,
        metrics: Metrics = NULL_METRICS,
    ) -> None:
        self._watch = PostgresWatch(target_of(dsn, settings, f"{name}-watch"), metrics=metrics) if watched else None
        self._timeout = settings.timeout
        self._failures = Failures(metrics)
        self._drained_at = 0.0
        target = target_of(dsn, settings, name)
        self._about = _about(target)
        set_json_dumps(orjson.dumps)
        set_json_loads(orjson.loads)
        self._pool = ConnectionPool(
            target.conninfo,
            min_size=1,
            max_size=settings.pool_size,
            timeout=settings.timeout,
            max_lifetime=3600,
            reconnect_timeout=0,
            reconnect_failed=lambda _: self._suspect(),
            connection_class=connection_class(settings.timeout + GRACE, on_refusal=self._failures.not_connected),
            configure=lambda connection: self._configure(connection, target),
            kwargs={"autocommit": True},
            open=False,
        )

    def _configure(self, connection: PostgresConnection, target: PostgresTarget) -> None:
        try:
            connection.prepare_session(target)
            connection.refuse_standby()
        except psycopg.Error as error:
            self._failures.not_connected(error)
            raise
        self._failures.connected()

    def open(self) -> None:
        """Start to connect, without waiting."""
        self._pool.open(wait=False)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close(timeout=1.0)
        if self._watch is not None:
            self._watch.close()

    @property
    def watch(self) -> PostgresWatch:
        """Return the watch that knows whether PostgreSQL is down.

        Raises:
            ValueError: It is not watched.
        """
        if self._watch is None:
            raise ValueError("this database is not watched")
        return self._watch

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """Open a cursor in a transaction of its own, committed at the end of the block.

        Raises:
            StoreUnavailable: PostgreSQL does not take it now, of the subclass that says why; the changes may or may not
                be committed.
            StoreRejected: PostgreSQL never takes these values.
        """
        with self._reported(), ExitStack() as stack:
            yield stack.enter_context(self._begin(stack).cursor())

    @repeated
    def rows(self, statement: str, values: Sequence[Any]) -> list[Row]:
        """Return the rows of one statement in a transaction of its own; a broken connection may execute it twice.

        Raises:
            StoreUnavailable: As by `cursor`.
            StoreRejected: As by `cursor`.
        """
        with self._reported():
            return self._answered(statement, values)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Refuse the block while the server is known to be down; raise Citadel's errors for PostgreSQL's."""
        if self._watch is not None:
            self._watch.admit()
        failure: CitadelError | None = None
        with tracing.span(TRANSACTION, "", self._about, passes=(CitadelError,)) as span:
            try:
                yield
            except psycopg.Error as error:
                failure = self._failed(error)
                tracing.fail(span, failure)
        if failure is not None:
            raise failure from None  # a traceback of PostgreSQL's error may show contents of rows

    def _failed(self, error: psycopg.Error) -> CitadelError:
        if kind_of(error) is Kind.AWAY:
            self._suspect()
        if error.sqlstate == psycopg.errors.ReadOnlySqlTransaction.sqlstate:
            self._drain()
        return self._failures.of(error)

    def _drain(self) -> None:
        """Replace all connections, once a second at most: those that are open lead to a standby."""
        if time.monotonic() > self._drained_at + 1.0:
            self._drained_at = time.monotonic()
            with suppress(psycopg.Error):
                self._pool.drain()

    def _answered(self, statement: str, values: Sequence[Any]) -> list[Row]:
        """Run the statement; connections that a restart of PostgreSQL has broken are discarded."""
        deadline, last = Deadline.after(self._timeout), None
        for _ in range(self._pool.max_size + 1):
            with ExitStack() as attempt:
                connection = self._taken(attempt, deadline)
                try:
                    with connection.begin() if connection.pooled else nullcontext():
                        return connection.execute(statement.encode(), values).fetchall()
                except psycopg.Error as error:
                    connection.close_if_stale(error)
                    if not isinstance(error, psycopg.OperationalError) or not connection.closed:
                        raise
                    last = error
        raise last or psycopg.OperationalError("no connection is usable")

    def _begin(self, stack: ExitStack) -> PostgresConnection:
        """Begin a transaction; connections that a restart of PostgreSQL has broken are discarded."""
        deadline, last = Deadline.after(self._timeout), None
        for _ in range(self._pool.max_size + 1):
            with ExitStack() as attempt:
                connection = self._taken(attempt, deadline)
                try:
                    attempt.enter_context(connection.begin())
                except psycopg.OperationalError as error:
                    last = error
                else:
                    stack.push(attempt.pop_all())
                    return connection
        raise last or psycopg.OperationalError("no connection is usable")

    def _taken(self, attempt: ExitStack, deadline: Deadline) -> PostgresConnection:
        """Take a connection of the pool; a caller that waits learns soon that the server is down."""
        while True:
            patience = max(0.0, deadline.remaining)
            try:
                connection = attempt.enter_context(
                    self._pool.connection(min(LOOK, patience) if self._watch else patience)
                )
            except PoolTimeout:
                self._suspect()
                if self._watch is None or self._watch.is_down or deadline.remaining <= 0:
                    raise
            else:
                attempt.callback(_replace_if_grown, connection)  # after the commit, before it goes back into the pool
                return connection

    def _suspect(self) -> None:
        if self._watch is not None:
            self._watch.suspect()

    def refuse_full(self) -> None:
        """Check that the disk was not full a moment ago.

        Raises:
            StoreFull: It was.
        """
        if self._failures.is_full:
            raise StoreFull("the database's disk is full; make room for it")

    def ping(self) -> None:
        """Make a round trip.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        with self.cursor() as cursor:
            cursor.execute("SELECT 1")
