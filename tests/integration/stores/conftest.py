"""Fixtures of the stores' tests."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psycopg
import pytest

from citadel_orchestration.db.migrate import migrate
from tests.support.fixtures import require_postgres
from tests.support.pgbouncer import PgBouncerProcess
from tests.support.postgres_server import PostgresProcess
from tests.support.servers import double_or_real


@dataclass(frozen=True, kw_only=True)
class PooledServer:
    """PostgreSQL behind PgBouncer in transaction mode.

    Attributes:
        database: Gives the DSN, by way of the pooler, of migrated and empty tables.
        direct: Returns the DSN past the pooler; None for a real one, whose server is not known.
    """

    database: Callable[[], AbstractContextManager[str]]
    direct: Callable[[str], str] | None = None


@pytest.fixture(scope="session")
def role_server() -> Iterator[PostgresProcess]:
    """A PostgreSQL server whose role creates other roles."""
    require_postgres()
    with PostgresProcess(makes_roles=True) as server:
        yield server


@contextlib.contextmanager
def pooler_of_our_own(server: PostgresProcess) -> Iterator[PooledServer]:
    with PgBouncerProcess(server) as pooler:

        @contextlib.contextmanager
        def database() -> Iterator[str]:
            with server.database() as direct:
                yield pooler.dsn(direct)

        yield PooledServer(database=database, direct=lambda dsn: server.dsn_of(dsn.rpartition("/")[2]))


@contextlib.contextmanager
def real_pooler(_: PostgresProcess) -> Iterator[PooledServer]:
    address = os.environ.get("CITADEL_REAL_PGBOUNCER", "").rstrip("/")
    if not address:  # not a failure in CI: the other parameter is a real PgBouncer, too
        pytest.skip("CITADEL_REAL_PGBOUNCER names no PgBouncer")

    @contextlib.contextmanager
    def database() -> Iterator[str]:
        schema = f"test_{uuid.uuid4().hex}"
        dsn = f"{address}{'&' if '?' in address else '?'}options=-csearch_path%3D{schema}"
        migrate(dsn)
        try:
            yield dsn
        finally:
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())

    yield PooledServer(database=database)


@pytest.fixture(scope="module", params=double_or_real(pooler_of_our_own, real_pooler))  # type: ignore[arg-type]
def pooled(request: pytest.FixtureRequest, postgres_server: PostgresProcess) -> Iterator[PooledServer]:
    """PostgreSQL behind a PgBouncer of the tests' own, or behind the real one that is named."""
    with request.param(postgres_server) as server:
        yield server
