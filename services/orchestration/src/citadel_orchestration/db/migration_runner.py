"""Application of migrations: one process at a time, each file once, and traffic is never queued up behind a lock.

A statement that waits for its lock on a table makes every later statement on that table wait, too. So each waits for
`LOCK_TIMEOUT` only, then its transaction is rolled back and begins again after a pause.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import psycopg
import structlog
from psycopg import sql

from citadel_common.errors import StoreUnavailable
from citadel_common.stores.db import PostgresConnection, open_connection
from citadel_common.stores.postgres_target import PostgresTarget
from citadel_orchestration.db import schema
from citadel_orchestration.db.migration_files import Index, available, indexes_in, text_of

T = TypeVar("T")
log = structlog.get_logger(__name__)
RUNNER = 0x0C17ADE2
"""Advisory lock of the process that migrates."""
LOCK = 0x0C17ADE1
"""Advisory lock of one transaction that changes tables; all that an older version's process waits for."""
LOCK_TIMEOUT = 2.0
"""Seconds that a statement waits for a lock on a table."""
PATIENCE = 3600.0
"""Seconds that one statement of a migration may take."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two tries."""
SETTINGS = {"lock_timeout": f"{LOCK_TIMEOUT:.0f}s", "idle_in_transaction_session_timeout": "0"}
"""Settings of a migration's connections. The one that holds `RUNNER` has nothing to do meanwhile."""
HELP = "pg_stat_activity shows the transactions that have been open for long"
# Without parameters: a statement that has them leaves a portal open, and with it a snapshot.
_TRY = "SELECT pg_try_advisory_xact_lock({})"
_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %s, false)"
_NO_TRANSACTION_TIMEOUT = "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'"
_IS_VALID = """
SELECT indisvalid AND indislive FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = %s AND relname = %s
"""
_RECORD = "INSERT INTO {} (name) VALUES (%s) ON CONFLICT DO NOTHING"


class MigrationRunner:
    """Brings one database to the newest version.

    Args:
        target: The database, with `SETTINGS`.
        grant_to: Role that gets what a running Citadel needs.
        patience: Seconds to wait for another process that migrates, and again for the locks of each migration.
    """

    def __init__(self, target: PostgresTarget, *, grant_to: str | None = None, patience: float) -> None:
        self._target = target
        self._grant_to = grant_to
        self._patience = patience

    def run(self, connection: PostgresConnection) -> list[str]:
        """Apply what is missing by an open connection; return the names of the migrations applied.

        Raises:
            StoreUnavailable: Another process migrates, or a transaction holds a table, and `patience` is over.
            psycopg.Error: The database does not answer, or refuses.
            WrongSetting: Another program's tables are in the way.
        """
        with self._alone():
            self._patiently("the schema", lambda: self._prepare(connection))
            applied = []
            for name in missing(connection, self._target):
                self._apply(connection, name)
                applied.append(name)
                log.info("migration_applied", name=name)
            if self._grant_to is not None:
                role = self._grant_to
                self._patiently("the grant", lambda: self._grant(connection, role))
            return applied

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold `RUNNER` for the block, by a transaction of its own.

        It is tried for and never waited for: CREATE INDEX CONCURRENTLY waits for every transaction with a snapshot, and
        a statement that waits for this lock would be one. Between statements a transaction has none. A lock of the
        session would be lost behind a connection pooler.
        """
        with open_connection(self._target, patience=PATIENCE) as holder, ExitStack() as stack:
            stack.enter_context(self._patiently("the database", lambda: _held(holder)))
            yield

    def _prepare(self, connection: PostgresConnection) -> None:
        with _changing(connection):
            schema.make(connection, self._target)

    def _grant(self, connection: PostgresConnection, role: str) -> None:
        with _changing(connection):
            schema.grant(connection, role)

    def _apply(self, connection: PostgresConnection, name: str) -> None:
        text = text_of(name)
        for index in indexes_in(text):
            self._patiently(name, lambda index=index: self._build(connection, index))  # type: ignore[misc]
        self._patiently(name, lambda: _change(connection, name, b"" if indexes_in(text) else text.encode()))

    def _build(self, connection: PostgresConnection, index: Index) -> None:
        """Build an index while its table is read and written; what an interrupted build has left is dropped first."""
        with connection.begin():
            [(place,)] = connection.execute("SELECT current_schema()::text").fetchall()
            is_valid = _is_valid(connection, place, index)
        if is_valid:
            return
        with self._long_locks(connection):
            # Outside a transaction a pooler's connection has the role's own search path: so names are qualified.
            if is_valid is not None:
                connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(place, index.name)))
            connection.execute(_creation(place, index))

    @contextmanager
    def _long_locks(self, connection: PostgresConnection) -> Iterator[None]:
        """Let statements of the block wait longer for open transactions: traffic does not queue up behind them.

        Behind a connection pooler the role's own timeouts count, since a setting of the session would stay with others.
        """
        if connection.pooled:
            yield
            return
        connection.execute(_LOCK_TIMEOUT, [f"{max(LOCK_TIMEOUT, self._patience):.0f}s"])
        try:
            yield
        finally:
            connection.execute(_LOCK_TIMEOUT, [SETTINGS["lock_timeout"]])

    def _patiently(self, what: str, attempt: Callable[[], T]) -> T:
        """Try until no lock is in the way."""
        end, pause = time.monotonic() + self._patience, FIRST_PAUSE
        while True:
            try:
                return attempt()
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
                if time.monotonic() > end:
                    raise StoreUnavailable(f"{what}: not migrated yet, {_words(error)}; {HELP}") from None
                log.warning("migration_waits", what=what, reason=_words(error))
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)


def missing(connection: PostgresConnection, target: PostgresTarget) -> list[str]:
    """Return the migrations that are not applied, in order; a database of a newer version lacks none.

    Raises:
        WrongSetting: Another program's tables are in the way.
    """
    with connection.begin():
        migrations = schema.of(connection, target)
        done = schema.applied(connection, migrations) if migrations is not None else set()
    return [name for name in available() if name not in done]


def _held(holder: PostgresConnection) -> ExitStack:
    """Return a transaction that holds `RUNNER`."""
    with ExitStack() as attempt:
        attempt.enter_context(holder.begin())
        _take(holder, RUNNER)
        return attempt.pop_all()


@contextmanager
def _changing(connection: PostgresConnection) -> Iterator[None]:
    """Run the block in a transaction that may change tables."""
    with connection.begin():
        _take(connection, LOCK)
        yield


def _take(connection: PostgresConnection, lock: int) -> None:
    connection.execute(_NO_TRANSACTION_TIMEOUT)
    [(taken,)] = connection.execute(_TRY.format(lock).encode()).fetchall()
    if not taken:
        raise psycopg.errors.LockNotAvailable("another process migrates the database")


def _change(connection: PostgresConnection, name: str, statements: bytes) -> None:
    """Apply a migration and record it, in one transaction."""
    with _changing(connection):
        if statements:
            connection.execute(statements)
        connection.execute(sql.SQL(_RECORD).format(schema.MIGRATIONS), [name])


def _is_valid(connection: PostgresConnection, place: str, index: Index) -> bool | None:
    """Return whether an index is complete; None if there is none."""
    row = connection.execute(_IS_VALID, [place, index.name]).fetchone()
    return None if row is None else bool(row[0])


def _creation(place: str, index: Index) -> sql.Composed:
    kind = sql.SQL("UNIQUE INDEX" if index.unique else "INDEX")
    table = sql.Identifier(place, index.table)
    return sql.SQL("CREATE {} CONCURRENTLY {} ON {} ").format(kind, sql.Identifier(index.name), table) + sql.SQL(
        index.rest
    )


def _words(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error)
