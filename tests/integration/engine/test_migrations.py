"""Migrations: each is applied once, whoever starts; a database that cannot hold every text is refused."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from citadel_orchestration.db.migrate import migrate
from citadel_orchestration.db.migration_files import available
from tests.support.postgres_server import PostgresProcess


@pytest.fixture
def empty(postgres_server: PostgresProcess) -> Iterator[str]:
    """The URL of a database without tables."""
    with created(postgres_server, "unmigrated", "UTF8") as dsn:
        yield dsn


@contextmanager
def created(server: PostgresProcess, name: str, encoding: str) -> Iterator[str]:
    options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    server.execute(f"CREATE DATABASE {name} {options}")
    try:
        yield server.dsn_of(name)
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def command(dsn: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "citadel_orchestration.migrate"],
        env=os.environ | {"CITADEL_POSTGRES_DSN": dsn},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_starters_at_once_apply_each_migration_once(empty: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, [empty] * 4))
    assert sorted(applied, key=len) == [[], [], [], available()]
    with psycopg.connect(empty) as connection:
        recorded = connection.execute("SELECT name FROM migrations ORDER BY name").fetchall()
    assert [name for (name,) in recorded] == available()


def test_the_migrate_command_may_be_run_again(empty: str) -> None:
    for _ in range(2):
        done = command(empty)
        assert done.returncode == 0, done.stderr
    assert migrate(empty) == []


def test_a_database_of_another_encoding_is_refused_with_what_to_do(postgres_server: PostgresProcess) -> None:
    with created(postgres_server, "ascii", "SQL_ASCII") as dsn:
        done = command(dsn)
        assert done.returncode == 78
        assert "encoding is SQL_ASCII; create it with ENCODING 'UTF8'" in done.stderr
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT to_regclass('runs')").fetchone() == (None,)
