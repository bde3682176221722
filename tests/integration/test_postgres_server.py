"""The tests' own PostgreSQL: what the other tests rely on."""

import psycopg
import pytest

from tests.support.fixtures import require_postgres
from tests.support.postgres_server import PostgresProcess

TIMEOUT_S = 10


def ask(dsn, statement):
    with psycopg.connect(dsn, connect_timeout=TIMEOUT_S) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture(scope="module")
def server():
    """A server of this module's own, since its tests stop it."""
    require_postgres()

    def prepare(dsn):
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TABLE runs (id int PRIMARY KEY)")

    with PostgresProcess(prepare) as server:
        yield server


def test_a_new_database_has_the_schema_and_no_rows(server):
    with server.database() as first, server.database() as second:
        with psycopg.connect(first) as connection:
            connection.execute("INSERT INTO runs VALUES (1)")
        assert ask(first, "SELECT id FROM runs") == [(1,)]
        assert ask(second, "SELECT id FROM runs") == []


def test_a_database_is_dropped_at_the_end_of_its_block_even_if_a_client_is_connected(server):
    with server.database() as dsn:
        connection = psycopg.connect(dsn)
    with pytest.raises(psycopg.OperationalError), connection:
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(dsn, connect_timeout=TIMEOUT_S)


@pytest.mark.parametrize("end", [PostgresProcess.kill, PostgresProcess.stop])
def test_committed_rows_survive_a_stop_and_a_kill(server, end):
    with server.database() as dsn:
        with psycopg.connect(dsn) as connection:
            connection.execute("INSERT INTO runs VALUES (7)")
        end(server)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn, connect_timeout=TIMEOUT_S)
        server.start()
        assert ask(dsn, "SELECT id FROM runs") == [(7,)]


def test_frozen_it_answers_nothing_then_all(server):
    with server.database() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        with server.frozen():
            connection.pgconn.send_query(b"SELECT 1")
            with pytest.raises(psycopg.errors.ConnectionTimeout):
                psycopg.connect(dsn, connect_timeout=2)
            assert connection.pgconn.is_busy()
        assert connection.pgconn.get_result().get_value(0, 0) == b"1"
        assert connection.pgconn.get_result() is None


def test_the_products_tables_are_there(postgres_dsn):
    names = {name for (name,) in ask(postgres_dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert {"migrations", "runs"} <= names


def test_the_role_of_the_tests_is_not_a_superuser(postgres_dsn):
    assert ask(postgres_dsn, "SELECT current_user::text, usesuper FROM pg_user WHERE usename = current_user") == [
        ("citadel", False)
    ]
