"""Connections to PostgreSQL, direct or by a connection pooler.

The settings of a target are made by SQL and never at the start-up of a connection, since connection poolers refuse
those. A pooler in transaction mode gives each transaction another server connection, so there each transaction makes
its settings itself; a connection to the server keeps them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import psycopg
from psycopg.pq import TransactionStatus

from citadel_common.stores.postgres_target import PostgresTarget

REFUSED = (
    psycopg.errors.CantChangeRuntimeParam,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.UndefinedObject,
)
# reserved_connections exists from PostgreSQL 16 on. A limit of -1 is none.
CONNECTION_LIMITS = """
SELECT current_setting('max_connections')::int,
    CASE WHEN rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true), '0')::int END,
    rolconnlimit, datconnlimit,
    (SELECT sum(numbackends)::int FROM pg_stat_database),
    (SELECT numbackends FROM pg_stat_database WHERE pg_stat_database.datname = current_database()),
    (SELECT count(*)::int FROM pg_stat_activity WHERE usename = current_user)
FROM pg_roles, pg_database WHERE rolname = current_user AND pg_database.datname = current_database()
"""
STALE = frozenset({"0A000", "25006", "26000", "42P05"})
"""SQLSTATEs after which an open connection is not used again: its server is a standby now, or its prepared statements
are not those that this process knows."""
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"


class SettingRefused(psycopg.OperationalError):
    """The server refuses a setting of its own that the DSN's `options` or the search path make."""


class PostgresConnection(psycopg.Connection[Any]):
    """A connection on which no call waits longer than `patience` seconds, whatever the server does.

    The server's statement timeout ends statements. This timeout ends the wait for a server that hangs as a whole, and
    closes the connection.

    Attributes:
        pooled: Whether a connection pooler stands before the server; known after `prepare_session`.
        is_standby: Whether the server takes no changes; known after `prepare_session`.
    """

    patience: ClassVar[float] = 60.0
    pooled = False
    is_standby = False
    _begin_statements = b"BEGIN"

    def prepare_session(self, target: PostgresTarget) -> None:
        """Find out whether a pooler stands before the server, and make the settings of the session if there is none.

        Raises:
            psycopg.Error: The server does not answer, or knows a setting not.
        """
        # A pooler answers in its own name, so its number of the process is not the server's. set_config(…, true) lasts
        # for this one statement there, and leaves nothing behind on a server connection that others get next.
        pooled = f"pg_backend_pid() <> {self.info.backend_pid}"
        statement = f"SELECT {pooled}, pg_is_in_recovery(), {target.assignments(local=pooled)}"
        try:
            [(self.pooled, self.is_standby, *_)] = self.execute(statement.encode(), prepare=False).fetchall()
        except REFUSED as error:
            raise SettingRefused(f"PostgreSQL refuses a setting of `options`: {error.diag.message_primary}") from None
        if self.pooled:
            # A statement prepared on one server connection is not there on the next.
            self.prepare_threshold = None
            self._begin_statements = f"{BEGIN} SELECT {target.assignments(local='true')}".encode()

    def refuse_standby(self) -> None:
        """Check that the server takes changes.

        Raises:
            psycopg.errors.ReadOnlySqlTransaction: It is a standby.
        """
        if self.is_standby:
            raise psycopg.errors.ReadOnlySqlTransaction("the server is a standby")

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Run the block in a transaction with the settings of the target; committed at its end."""
        try:
            with self._begun() if self.pooled else self.transaction():
                yield
        except psycopg.Error as error:
            self.close_if_stale(error)
            raise

    def close_if_stale(self, error: psycopg.Error) -> None:
        """Close the connection after an error that each use of it would meet again; the next one finds the primary."""
        if error.sqlstate in STALE:
            self.close()

    @contextmanager
    def _begun(self) -> Iterator[None]:
        self.execute(self._begin_statements, prepare=False)  # one message, so one round trip
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Perform a psycopg call within `patience` seconds."""
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def connection_class(
    patience: float, *, on_refusal: Callable[[psycopg.Error], None] = lambda _: None
) -> type[PostgresConnection]:
    """Return a connection class whose calls wait at most `patience` seconds, and that tells why one does not open."""

    class BoundedConnection(PostgresConnection):
        @classmethod
        def connect(cls, *arguments: Any, **options: Any) -> Self:
            try:
                return super().connect(*arguments, **options)
            except psycopg.Error as error:
                on_refusal(error)
                raise

    BoundedConnection.patience = patience
    return BoundedConnection


def open_connection(target: PostgresTarget, *, patience: float) -> PostgresConnection:
    """Open a connection in autocommit mode, on which no call waits longer than `patience` seconds.

    Raises:
        psycopg.Error: The server does not answer, or refuses.
    """
    connection = connection_class(patience).connect(target.conninfo, autocommit=True)
    try:
        connection.prepare_session(target)
    except BaseException:
        connection.close()
        raise
    return connection


async def is_pooled(connection: "psycopg.AsyncConnection[Any]") -> bool:
    """Return whether a connection pooler stands before the server: it answers in its own name.

    Raises:
        psycopg.Error: The server does not answer.
    """
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    return row is None or row[0] != connection.info.backend_pid
