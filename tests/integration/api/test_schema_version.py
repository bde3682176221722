"""Readiness of an API whose database is behind, or ahead of it."""

import contextlib

import httpx
import psycopg
import pytest

from tests.integration.api.servers import Api
from tests.support.polling import eventually

LAST = "0006_accepted_traces.sql"


@pytest.fixture
def dsn(postgres_server):
    with postgres_server.database() as dsn:
        yield dsn


def execute(dsn, *statements):
    with psycopg.connect(dsn) as connection:
        for statement in statements:
            connection.execute(statement)


@contextlib.contextmanager
def api_on(dsn, redis, log):
    environment = {"CITADEL_BROKER_URL": redis.url, "CITADEL_POSTGRES_DSN": dsn, "CITADEL_API__WORKERS": "1"}
    api = Api(environment, log)
    try:
        with httpx.Client(base_url=api.url, timeout=30) as client:
            yield client
    finally:
        api.kill_all()


def test_readyz_names_the_migration_that_a_long_transaction_holds_up(dsn, api_redis, tmp_path):
    execute(dsn, f"DELETE FROM migrations WHERE name = '{LAST}'", "ALTER TABLE accepted_tasks DROP COLUMN trace")
    with psycopg.connect(dsn) as long, contextlib.ExitStack() as stack:
        long.execute("SELECT count(*) FROM accepted_tasks")
        client = stack.enter_context(api_on(dsn, api_redis, tmp_path / "log"))
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert f"postgres: the database lacks the migration {LAST}" in answer.json()["detail"]
        health = client.get("/v1/health").json()["components"]["postgres"]
        assert health["status"] == "down"
        assert LAST in health["detail"]
        assert client.get("/livez").status_code == 200
        long.rollback()
        eventually(lambda: client.get("/readyz").status_code == 200)


def test_a_database_that_a_newer_version_has_migrated_is_fine(dsn, api_redis, tmp_path):
    execute(dsn, "INSERT INTO migrations (name) VALUES ('9999_newer.sql')", "ALTER TABLE runs ADD COLUMN newer text")
    with api_on(dsn, api_redis, tmp_path / "log") as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
