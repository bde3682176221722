"""PostgreSQL behind PgBouncer in transaction mode: the same behaviour, and nothing left on shared connections."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from pydantic import SecretStr

from citadel_common.errors import StoreUnavailable
from citadel_common.settings.postgres import PostgresSettings
from citadel_common.stores.postgres import Database
from citadel_maintenance.db import read_tables
from citadel_monitoring.exporter.db import DatabaseReader
from citadel_monitoring.health.probes.postgres import select_one
from citadel_orchestration.api.runs import notifier
from citadel_orchestration.db.notifications import CHANNEL
from citadel_orchestration.engine.submission import new_run_id
from tests.integration.api.stack import embedding, open_stack
from tests.support.engine_db import EngineDatabase

ANSWER = {"step_id": "b", "type": "embedding", "depends_on": ["a"], "parameters": {"text": "second"}}


@pytest.fixture(scope="module")
def dsn(pooled):
    """The pooler's DSN of a database that the tests of this module share."""
    with pooled.database() as dsn:
        yield dsn


@contextlib.contextmanager
def opened(dsn, **settings):
    database = Database(SecretStr(dsn), PostgresSettings(**settings), name="test")
    database.open()
    try:
        yield database
    finally:
        database.close()


def test_each_transaction_has_the_timeout_and_leaves_nothing_behind(dsn):
    with opened(dsn, timeout=7) as database:
        with database.cursor() as cursor:
            assert cursor.execute("SELECT current_setting('statement_timeout')").fetchall() == [("7s",)]
        assert database.rows("SELECT current_setting(%s)", ["statement_timeout"]) == [("7s",)]
        with psycopg.connect(dsn.partition("?")[0], autocommit=True) as other:
            assert other.execute("SHOW statement_timeout").fetchall() != [("7s",)]


def test_a_statement_that_takes_too_long_is_ended(dsn):
    with opened(dsn, timeout=0.3) as database, pytest.raises(StoreUnavailable):
        database.rows("SELECT pg_sleep(%s)", [60])


def test_statements_of_many_threads_share_the_servers_connections(dsn):
    with opened(dsn) as database, ThreadPoolExecutor(10) as threads:
        rows = threads.map(lambda number: database.rows("SELECT %s::int + 1", [number]), range(200))
        assert [row for [(row,)] in rows] == list(range(1, 201))


def test_runs_are_recorded_and_steps_end(dsn):
    with EngineDatabase(dsn) as db:
        run_id = db.submit({"steps": [{"step_id": "a", "type": "embedding", "parameters": {"text": "first"}}, ANSWER]})
        db.commands.cancel(run_id)
        assert db.status(run_id) == "cancelled"


def test_monitoring_and_maintenance_read_the_tables(dsn):
    reader = DatabaseReader(SecretStr(dsn), PostgresSettings(), timeout=20)
    assert reader.read()
    assert reader.read()
    reader._connection.close()
    with opened(dsn) as database:
        assert {table.name for table in read_tables(database)} >= {"runs", "steps"}
    assert asyncio.run(select_one(SecretStr(dsn), 5.0)) is None


@pytest.fixture(scope="module")
def stack(pooled, tmp_path_factory):
    """The API and both workers, with the pooler before their database."""
    with open_stack(pooled, tmp_path_factory.mktemp("pooled") / "api") as stack:
        yield stack


def test_a_workflow_runs_from_its_submission_to_its_last_event(stack):
    path = stack.submit(embedding("a", "first"), embedding("b", "second", depends_on=["a"]), embedding("c", "third"))
    with stack.http.stream("GET", f"{path}/events", headers={"accept": "text/event-stream"}) as events:
        received = b"".join(events.iter_bytes())
    assert b"event: run_succeeded" in received
    assert stack.show(path)["status"] == "succeeded"
    assert "run_notifications_polled" in stack.log.read_text()


def test_a_batch_ends_with_all_its_results(stack):
    path = stack.submit_batch([{"text": f"text {number}"} for number in range(130)])
    assert stack.ended(path)["status"] == "succeeded"
    assert len(stack.results(path)) == 130


def notified(monkeypatch, dsn, direct, statement):
    """Follow a run without polling; return whether a notification arrived before the follower gave up."""
    monkeypatch.setattr(notifier, "POLL_INTERVAL", 3600.0)
    run_id = new_run_id()

    async def follow():
        listener = notifier.RunNotifier(SecretStr(dsn), SecretStr(direct))
        listener.start()
        changes = listener.follow(run_id)
        await anext(changes)
        waiting = asyncio.ensure_future(anext(changes))
        while not waiting.done():
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(statement, [CHANNEL, str(run_id)])
            await asyncio.sleep(0.05)
        await changes.aclose()
        await listener.stop()

    asyncio.run(asyncio.wait_for(follow(), 60))


def test_notifications_come_by_the_direct_dsn(monkeypatch, pooled, dsn):
    if pooled.direct is None:
        pytest.skip("the server behind the real pooler is not known")
    notified(monkeypatch, dsn, pooled.direct(dsn), "SELECT pg_notify(%s, %s)")
