"""Versioned migrations: SQL files, applied in order, each once, also when several processes start at once.

A migration only adds tables, columns and functions: an older version keeps working during a rolling update.
"""

import importlib.resources
import importlib.resources.abc
import time

import psycopg
import structlog
from pydantic import SecretStr

from citadel_common.errors import StoreUnavailable

log = structlog.get_logger(__name__)
LOCK = 0x0C17ADE1
"""Advisory lock; processes that start at once migrate one after the other."""
PACKAGE = "citadel_orchestration.db"


def migrate(dsn: str, *, connect_timeout: int = 10) -> list[str]:
    """Bring the database to the newest version; return the names of the migrations applied.

    Raises:
        psycopg.Error: The database does not answer, or refuses.
        StoreUnavailable: Its encoding is not UTF-8.
    """
    with psycopg.connect(dsn, connect_timeout=connect_timeout, autocommit=True) as connection:
        _check_encoding(connection)
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            applied = [name for name in _missing(connection) if _apply(connection, name)]
        for name in applied:
            log.info("migration_applied", name=name)
        return applied


def migrate_patiently(dsn: SecretStr, *, patience: float = 120.0) -> None:
    """Wait for PostgreSQL, for `patience` seconds at most, and bring it to the newest version.

    Raises:
        StoreUnavailable: It did not come up in time, or its encoding is not UTF-8.
    """
    end, pause = time.monotonic() + patience, 0.2
    while True:
        try:
            migrate(dsn.get_secret_value())
        except psycopg.OperationalError as error:
            if time.monotonic() > end:
                raise StoreUnavailable(f"PostgreSQL does not answer; check CITADEL_POSTGRES_DSN: {error}") from None
            log.warning("waiting_for_postgres", error=str(error).strip())
        else:
            return
        time.sleep(pause)
        pause = min(3.0, pause * 2)


def _check_encoding(connection: "psycopg.Connection[tuple[object, ...]]") -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreUnavailable(
            f"the database's encoding is {encoding}; create it with ENCODING 'UTF8' TEMPLATE template0"
        )


def _missing(connection: "psycopg.Connection[tuple[object, ...]]") -> list[str]:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    done = {name for (name,) in connection.execute("SELECT name FROM migrations")}
    return [name for name in available() if name not in done]


def _apply(connection: "psycopg.Connection[tuple[object, ...]]", name: str) -> bool:
    connection.execute(_folder().joinpath(name).read_bytes())
    connection.execute("INSERT INTO migrations (name) VALUES (%s)", [name])
    return True


def available() -> list[str]:
    """Return the names of all migrations, in order."""
    return sorted(entry.name for entry in _folder().iterdir() if entry.name.endswith(".sql"))


def _folder() -> "importlib.resources.abc.Traversable":
    return importlib.resources.files(PACKAGE).joinpath("migrations")
