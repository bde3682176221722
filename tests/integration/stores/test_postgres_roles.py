"""Roles that own nothing, schemas of one's own, and defaults of roles that must change nothing."""

import contextlib
import os
import subprocess
import sys
import uuid

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from citadel_common.settings.common import EX_CONFIG, WrongSetting
from citadel_common.settings.postgres import StoredSettings
from citadel_orchestration.db import migration_runner
from citadel_orchestration.db.migrate import ensure_migrated, migrate
from citadel_orchestration.db.migration_files import available
from tests.support.engine_db import EngineDatabase
from tests.support.planted import POSTGRES_PASSWORD, TEXT

STEPS = {
    "steps": [
        {"step_id": "a", "type": "embedding", "parameters": {"text": TEXT}},
        {"step_id": "b", "type": "embedding", "depends_on": ["a"], "parameters": {"text": TEXT}},
    ]
}
HOSTILE = {
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "German",
    "IntervalStyle": "iso_8601",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "statement_timeout": "2s",
    "lock_timeout": "2s",
    "lc_numeric": "C",
}


@pytest.fixture
def database(role_server):
    """The owner's DSN of an empty database, which ends with the server."""
    name = f"db_{uuid.uuid4().hex}"
    role_server.execute(f"CREATE DATABASE {name}")
    return role_server.dsn_of(name)


@contextlib.contextmanager
def role(owner, **defaults):
    """Give the name of a role that owns nothing, and its DSN; the role ends with the server."""
    name = f"app_{uuid.uuid4().hex}"
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{POSTGRES_PASSWORD}'".encode())
        for setting, value in defaults.items():
            connection.execute(
                sql.SQL("ALTER ROLE {} SET {} = {}").format(sql.Identifier(name), sql.SQL(setting), value)
            )
    yield name, f"postgresql://{name}:{POSTGRES_PASSWORD}@{owner.rpartition('@')[2]}"


def settings(dsn, **postgres):
    return StoredSettings(postgres_dsn=SecretStr(dsn), postgres=postgres)


def ask(dsn, query, *values):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query, values).fetchall()


def run_ends(dsn):
    """Submit a run and take it through its steps to its end."""
    with EngineDatabase(dsn) as db:
        run_id = db.submit(STEPS)
        db.commands.pause(run_id)
        db.commands.resume(run_id)
        db.commands.cancel(run_id)
        assert db.status(run_id) == "cancelled"
        assert {name for name, *_ in db.events(run_id)} >= {"run_paused", "run_cancelled"}
        return db.rows("SELECT created_at, finished_at >= created_at FROM runs WHERE run_id = %s", run_id)[0]


def test_a_role_that_only_reads_and_writes_rows_runs_what_the_owner_migrated(database):
    with role(database) as (name, dsn):
        migrate(database, grant_to=name)
        ensure_migrated(settings(dsn))
        run_ends(dsn)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(dsn, "ALTER TABLE runs ADD COLUMN mine text")


def test_the_owners_dsn_migrates_when_the_role_may_not(database):
    with role(database) as (name, dsn):
        with pytest.raises(WrongSetting, match="--grant-to ROLE"):  # migrated, and the role may not use it yet
            ensure_migrated(settings(dsn, migration_dsn=database))
        migrate(database, grant_to=name)
        ensure_migrated(settings(dsn))


def test_a_process_with_the_owners_dsn_migrates_and_grants(database):
    with role(database) as (name, dsn):
        owner, _, place = database.rpartition("@")
        bare = f"{owner.rpartition(':')[0]}@{place}"
        ensure_migrated(settings(dsn, migration_dsn=bare, migration_password=POSTGRES_PASSWORD, grant_to=name))
        run_ends(dsn)


def test_an_older_schema_is_refused_where_the_role_may_not_migrate(database, monkeypatch):
    with role(database) as (name, dsn), monkeypatch.context() as older:
        older.setattr(migration_runner, "available", lambda: available()[:-1])
        migrate(database, grant_to=name)
        older.undo()
        with pytest.raises(WrongSetting, match="CITADEL_POSTGRES_DSN: the database needs a migration") as refused:
            ensure_migrated(settings(dsn))
        assert "CITADEL_POSTGRES__MIGRATION_DSN" in str(refused.value)


def test_a_newer_schema_is_used(database, monkeypatch):
    migrate(database)
    monkeypatch.setattr(migration_runner, "available", lambda: available()[:-1])
    ensure_migrated(settings(database))


def started(module, dsn, **variables):
    """Return the exit of a process that starts with this DSN."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CITADEL_")}
    own = {"CITADEL_BROKER_URL": "redis://127.0.0.1:1/0", "CITADEL_POSTGRES_DSN": dsn} | variables
    own["CITADEL_API__KEYLESS"] = "loopback"
    command = [sys.executable, "-m", *module.split()]
    return subprocess.run(command, env=inherited | own, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", ["citadel_orchestration", "citadel_orchestration.api"])
def test_processes_of_a_role_that_may_not_migrate_end_with_the_line_that_says_how(database, module):
    with role(database) as (_, dsn):
        ended = started(module, dsn)
    assert ended.returncode == EX_CONFIG, ended.stderr
    assert "citadel: wrong setting: CITADEL_POSTGRES_DSN: the database needs a migration" in ended.stderr
    assert POSTGRES_PASSWORD not in ended.stderr + ended.stdout


def test_the_migrate_command_migrates_as_owner_and_grants(database):
    with role(database) as (name, dsn):
        owner = {"CITADEL_POSTGRES__MIGRATION_DSN": database, "CITADEL_POSTGRES__SEARCH_PATH": "citadel"}
        ended = started(f"citadel_orchestration.migrate --grant-to {name}", dsn, **owner)
        assert ended.returncode == 0, ended.stderr
        ensure_migrated(settings(dsn, search_path="citadel"))
        run_ends(f"{dsn}?options=-csearch_path%3Dcitadel")
    assert ask(database, "SELECT to_regclass('public.runs')") == [(None,)]


def test_tables_of_other_programs_in_later_schemas_are_left_alone(database):
    decoys = {table: f"CREATE TABLE {table} (other int)" for table in ("migrations", "runs", "steps")}
    for statement in decoys.values():
        with psycopg.connect(database) as connection:
            connection.execute(statement.encode())
    migrate(database, search_path="citadel, public")
    ensure_migrated(settings(database, search_path="citadel, public"))
    run_ends(f"{database}?options=-csearch_path%3Dcitadel,public")
    assert ask(database, "SELECT count(*) FROM public.runs") == [(0,)]


def test_another_citadel_in_a_later_schema_is_not_taken_for_ours(database):
    migrate(database)
    assert migrate(database, search_path='"Second One", public') == available()
    run_ends(f"{database}?options=-csearch_path%3D%22Second%5C%20One%22,public")
    assert ask(database, "SELECT count(*) FROM public.runs") == [(0,)]


def test_another_programs_migrations_are_not_written_to(database):
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE migrations (id int, name text, timestamp bigint)")
    with pytest.raises(WrongSetting, match="CITADEL_POSTGRES__SEARCH_PATH: schema public holds another program's"):
        ensure_migrated(settings(database))


def test_tables_behind_a_newer_first_schema_are_not_forgotten(database):
    migrate(database)
    with psycopg.connect(database) as connection:
        connection.execute("CREATE SCHEMA citadel")  # the role's name, which comes before public by default
    with pytest.raises(WrongSetting, match="Citadel's tables are in schema public, and the role's first schema is"):
        ensure_migrated(settings(database))
    ensure_migrated(settings(database, search_path="public"))


def test_defaults_of_the_role_and_of_the_database_change_nothing(database, role_server):
    with role(database, **HOSTILE) as (name, dsn):
        migrate(database, grant_to=name)
        role_server.execute(f"ALTER DATABASE {database.rpartition('/')[2]} SET timezone = 'Pacific/Apia'")
        ensure_migrated(settings(dsn))
        created_at, in_order = run_ends(dsn)
    assert in_order
    assert created_at.utcoffset().total_seconds() == 0
