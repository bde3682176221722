"""Runs that change wake their followers, and no change waits for PostgreSQL's lock of notifications."""

import contextlib
import threading

import psycopg
import pytest

from citadel_common.errors import InvalidInput
from citadel_orchestration.db.models import StepRef
from citadel_orchestration.db.notifications import LISTEN
from tests.support.engine_db import EngineDatabase
from tests.support.polling import eventually
from tests.support.postgres_server import FAST, PostgresProcess

# Commits that ask for a standby wait for one that never comes; all others do not ask.
NO_STANDBY = (
    "wal_level=replica",
    "max_wal_senders=1",
    "synchronous_standby_names=nobody",
    "synchronous_commit=local",
)
HANGING = """
SELECT pid FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE wait_event = 'SyncRep' AND locktype = 'object'
    AND database = 0 AND classid = 'pg_database'::regclass AND granted
"""
STEPS = [
    {"step_id": step_id, "type": "llm_query", "parameters": {"query": "q"}, "retry": {"max_attempts": 1}}
    for step_id in ("a", "b", "c")
]


@pytest.fixture(scope="module")
def server():
    """A server on which a commit can be kept from ending."""
    with PostgresProcess(settings=(*FAST, *NO_STANDBY)) as server:
        yield server


@contextlib.contextmanager
def notifying(dsn):
    """Keep a transaction that has notified just before the end of its commit."""

    ended = threading.Event()

    def notify():
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = on")
            while (
                not ended.is_set()
            ):  # the first commits may end: a new server knows of its standbys only after a while
                connection.execute("SELECT pg_notify('another', '')")

    thread = threading.Thread(target=notify)
    thread.start()
    with psycopg.connect(dsn, autocommit=True) as watcher:
        try:
            eventually(lambda: watcher.execute(HANGING).fetchall())
            yield
        finally:
            ended.set()
            watcher.execute(f"SELECT pg_cancel_backend(pid) FROM ({HANGING}) AS holder")
            thread.join()


def test_no_transaction_on_a_run_waits_for_one_that_notifies(server):
    with server.database() as dsn, EngineDatabase(dsn) as db, notifying(dsn):
        run_id = db.submit({"steps": STEPS})
        [claim] = db.transitions.start(StepRef(run_id=run_id, step_id="a")).claims
        [claim] = db.transitions.succeed(claim.ref, claim.attempt, {"text": "by the general transition"}).claims
        [claim] = db.transitions.succeed(claim.ref, claim.attempt, {"text": "by the stored function"}).claims
        db.commands.pause(run_id)
        db.commands.resume(run_id)
        db.transitions.fail(claim.ref, claim.attempt, InvalidInput("no"))
        assert db.status(run_id) == "failed"
        db.commands.retry(run_id, deadline=None)
        db.commands.cancel(run_id)


def test_notifications_go_on_after_one_that_hung(server):
    with server.database() as dsn, EngineDatabase(dsn) as db:
        with notifying(dsn):
            run_id = db.submit({"steps": STEPS})
            db.commands.pause(run_id)
        with psycopg.connect(dsn, autocommit=True) as listener:
            listener.execute(LISTEN)
            db.commands.cancel(run_id)
            assert {notice.payload for notice in listener.notifies(timeout=30, stop_after=1)} == {str(run_id)}
