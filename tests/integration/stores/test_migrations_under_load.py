"""Migrations of a database in use: traffic goes on, indexes are built beside it, starters do not block each other."""

import contextlib
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest

from citadel_common.errors import StoreUnavailable
from citadel_orchestration.db import migration_files, migration_runner
from citadel_orchestration.db.migrate import migrate
from tests.support.polling import eventually

FIRST_IN_USE = 6
"""Number of the migrations before databases in use were thought of."""
TABLE = "ALTER TABLE runs ADD COLUMN IF NOT EXISTS extra text;\n"
INDEX = "-- CONCURRENTLY: traffic goes on\nCREATE INDEX CONCURRENTLY runs_by_extra ON runs (kind) WHERE kind <> '';\n"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'runs_by_extra'::regclass"


@pytest.fixture
def newer(tmp_path, monkeypatch):
    """Write a migration that a newer version has beside those that are shipped."""
    folder = tmp_path / "migrations"
    shutil.copytree(Path(str(files("citadel_orchestration.db"))) / "migrations", folder)
    monkeypatch.setattr(migration_files, "_folder", lambda: folder)
    return lambda text, name="9000_newer.sql": (folder / name).write_text(text)


@contextlib.contextmanager
def open_transaction(dsn, statement="SELECT count(*) FROM runs"):
    with psycopg.connect(dsn) as connection:
        connection.execute(statement)
        yield connection
        connection.rollback()


def value(dsn, statement, *values):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET statement_timeout = '10s'")
        return connection.execute(statement, values).fetchone()[0]


def is_locked_out(dsn):
    return value(
        dsn, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s", dsn_name(dsn)
    )


def dsn_name(dsn):
    return dsn.rpartition("/")[2]


def test_traffic_passes_a_migration_that_waits_for_a_long_transaction(postgres_dsn, newer):
    newer(TABLE)
    with ThreadPoolExecutor(1) as thread, open_transaction(postgres_dsn):
        migration = thread.submit(migrate, postgres_dsn)
        assert eventually(lambda: is_locked_out(postgres_dsn))
        # by a statement that waits for the migration's lock: it passes when the migration steps back
        assert value(postgres_dsn, "SELECT count(*) FROM runs") == 0
        assert not migration.done()
    assert migration.result(60) == ["9000_newer.sql"]


def test_a_migration_gives_up_with_what_is_in_the_way_and_goes_on_later(postgres_dsn, newer):
    newer("ALTER TABLE steps ADD COLUMN extra text;\n", "8000_first.sql")
    newer(TABLE)
    with open_transaction(postgres_dsn), pytest.raises(StoreUnavailable, match=r"9000_newer\.sql: .*lock timeout"):
        migrate(postgres_dsn, patience=0)
    assert migrate(postgres_dsn) == ["9000_newer.sql"]


def test_an_index_is_built_while_a_writer_holds_the_table(postgres_dsn, newer):
    newer(INDEX)
    with ThreadPoolExecutor(1) as thread:
        with open_transaction(postgres_dsn, "LOCK TABLE runs IN ROW EXCLUSIVE MODE"):
            migration = thread.submit(migrate, postgres_dsn)
            assert eventually(lambda: is_locked_out(postgres_dsn))
            with psycopg.connect(postgres_dsn) as writer:
                writer.execute("LOCK TABLE runs IN ROW EXCLUSIVE MODE NOWAIT")
        assert migration.result(60) == ["9000_newer.sql"]
    assert value(postgres_dsn, VALID)


def test_what_an_interrupted_build_has_left_is_built_again(postgres_dsn, newer):
    with (
        open_transaction(postgres_dsn, "LOCK TABLE runs IN ROW EXCLUSIVE MODE"),
        psycopg.connect(postgres_dsn, autocommit=True) as connection,
    ):
        connection.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute("CREATE INDEX CONCURRENTLY runs_by_extra ON runs (kind)")
    assert not value(postgres_dsn, VALID)
    newer(INDEX)
    migrate(postgres_dsn)
    assert value(postgres_dsn, VALID)


def test_starters_at_once_build_an_index_once_and_wait_for_no_deadlock(postgres_dsn, newer):
    newer(INDEX)
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, [postgres_dsn] * 4))
    assert sorted(applied, key=len) == [[], [], [], ["9000_newer.sql"]]
    assert value(postgres_dsn, VALID)


def test_an_older_version_that_waits_for_its_lock_blocks_no_index(postgres_dsn, newer):
    """It waits in a statement, whose snapshot CREATE INDEX CONCURRENTLY waits for in turn."""
    newer(INDEX)
    started = threading.Event()

    def older():
        with psycopg.connect(postgres_dsn) as connection:
            started.set()
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [migration_runner.LOCK])

    with ThreadPoolExecutor(2) as threads:
        with open_transaction(postgres_dsn, "LOCK TABLE runs IN ROW EXCLUSIVE MODE"):
            migration = threads.submit(migrate, postgres_dsn)
            assert eventually(lambda: is_locked_out(postgres_dsn))
            waiting = threads.submit(older)
            assert started.wait(10)
        assert migration.result(60) == ["9000_newer.sql"]
        waiting.result(60)


def test_an_index_is_built_by_way_of_a_pooler(pooled, newer):
    with pooled.database() as dsn:
        newer(INDEX)
        assert migrate(dsn) == ["9000_newer.sql"]
        assert migrate(dsn) == []


def test_a_file_that_mixes_indexes_with_other_statements_is_refused(newer):
    with pytest.raises(ValueError, match="does nothing else: ALTER TABLE"):
        migration_files.indexes_in(INDEX + TABLE)


def test_shipped_migrations_build_indexes_of_existing_tables_concurrently():
    for name in migration_files.available()[FIRST_IN_USE:]:
        text = migration_files.text_of(name)
        made = set(re.findall(r"CREATE TABLE (\w+)", text))
        built = {index.name for index in migration_files.indexes_in(text)}
        for index, table in re.findall(r"INDEX (?:CONCURRENTLY )?(\w+)\s+ON (\w+)", text):
            assert table in made or index in built, f"{name}: {index} locks {table}: say CONCURRENTLY"
