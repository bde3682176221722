"""`citadel.purge_runs` and `citadel.advise_vacuum` on a real PostgreSQL."""

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest

from tests.integration.maintenance.conftest import Ask, asked
from tests.support.celery_client import PlainClient
from tests.support.engine_db import EngineDatabase
from tests.support.maintenance import DAY, MaintenanceProcess

TASK = "citadel.purge_runs"
WAIT = {"steps": [{"step_id": "w", "type": "wait", "parameters": {"duration": "1h"}}]}
TABLES = ("runs", "steps", "payloads", "events", "signals")


@pytest.fixture(autouse=True)
def _empty(runs: EngineDatabase) -> None:
    runs.rows("DELETE FROM runs")


def aged(
    runs: EngineDatabase, *, days: float, status: str = "succeeded", parent: UUID | None = None, key: str = ""
) -> UUID:
    """Return a run that ended `days` ago, or still runs if `status` says so, with rows in every table."""
    run_id = runs.submit(WAIT | ({"idempotency_key": key} if key else {}))
    runs.rows("INSERT INTO payloads VALUES (%s, 'w', -1, 'output', %s)", run_id, b"x" * 10_000)
    runs.rows("INSERT INTO signals (run_id, seq, name, payload) VALUES (%s, 1, 's', 'p')", run_id)
    ended = None if status == "running" else days * DAY
    runs.rows(
        "UPDATE runs SET status = %s, parent_run_id = %s, created_at = now() - make_interval(secs => %s),"
        " finished_at = now() - make_interval(secs => %s) WHERE run_id = %s",
        status,
        parent,
        days * DAY + 60,
        ended,
        run_id,
    )
    return run_id


def counts(runs: EngineDatabase) -> dict[str, int]:
    """Return the number of rows of each table."""
    return {table: runs.rows(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}


def test_exactly_the_old_finished_runs_are_removed(runs: EngineDatabase, ask: Ask) -> None:
    kept = {aged(runs, days=29.9), aged(runs, days=400, status="running"), runs.submit(WAIT)}
    before = counts(runs)
    for status in ("succeeded", "failed", "cancelled", "timed_out"):
        aged(runs, days=30.1, status=status, key=status)

    foretold = ask(TASK, dry_run=True)
    assert len(runs.statuses()) == 7
    report = ask(TASK)

    assert runs.statuses().keys() == kept
    assert counts(runs) == before
    assert report["finished"] is True
    assert report["removed"] == 4
    assert report["bytes_freed"] > 4 * 10_000
    assert foretold["kinds"] == report["kinds"]
    assert runs.submit(WAIT | {"idempotency_key": "failed"}) not in kept


def test_sub_runs_are_removed_with_their_parents(runs: EngineDatabase, ask: Ask) -> None:
    old, running = aged(runs, days=31), aged(runs, days=31, status="running")
    young = aged(runs, days=1)
    child = aged(runs, days=32, parent=old)
    aged(runs, days=33, parent=child)
    kept = {running, young, aged(runs, days=32, parent=running), aged(runs, days=32, parent=young)}
    kept.add(aged(runs, days=40, parent=next(iter(kept - {running, young}))))
    foretold, report = ask(TASK, dry_run=True), ask(TASK)
    assert runs.statuses().keys() == kept
    assert foretold["removed"] == report["removed"] == 3


def test_a_locked_run_is_left_for_the_next_time(runs: EngineDatabase, dsn: str, ask: Ask) -> None:
    locked, free = aged(runs, days=40), aged(runs, days=31)
    with psycopg.connect(dsn) as other:
        other.execute("SELECT 1 FROM runs WHERE run_id = %s FOR UPDATE", [locked])
        assert ask(TASK)["removed"] == 1
    assert free not in runs.statuses()
    assert ask(TASK)["removed"] == 1


@pytest.fixture(scope="module")
def small_batches(redis_url: str, dsn: str) -> Iterator[None]:
    settings = {"MAINTENANCE__RUN_BATCH": 3, "MAINTENANCE__RUN_BATCH_EVENTS": 2, "BROKER_URL": redis_url[:-1] + "5"}
    with MaintenanceProcess(redis_url, dsn, settings):
        yield


@pytest.mark.usefixtures("small_batches")
def test_many_batches_remove_the_same_as_one(runs: EngineDatabase, redis_url: str) -> None:
    for _ in range(10):
        aged(runs, days=31)
    with PlainClient(redis_url[:-1] + "5") as plain:
        assert asked(plain, TASK)["removed"] == 10
    assert runs.statuses() == {}


SLOW_DELETES = """
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN old; END';
CREATE TRIGGER slowly BEFORE DELETE ON runs FOR EACH ROW EXECUTE FUNCTION slowly();
"""


def test_runs_too_big_for_one_batch_are_removed_one_by_one(runs: EngineDatabase, dsn: str, redis_url: str) -> None:
    for _ in range(5):
        aged(runs, days=31)
    place = redis_url[:-1] + "6"
    settings = {"MAINTENANCE__STATEMENT_TIMEOUT": "0.3"}
    with MaintenanceProcess(place, dsn, settings) as worker, PlainClient(place) as plain:
        runs.rows(SLOW_DELETES)
        try:
            report = asked(plain, TASK)
        finally:
            runs.rows("DROP FUNCTION slowly CASCADE")
        assert worker.events("runs_removed_singly")
    assert (report["finished"], report["removed"]) == (True, 5)
    assert runs.statuses() == {}


def test_advice_names_tables_full_of_dead_rows(runs: EngineDatabase, dsn: str, ask: Ask) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE TABLE worn (n integer) WITH (autovacuum_enabled = false)")
        try:
            admin.execute("INSERT INTO worn SELECT generate_series(1, 5000)")
            admin.execute("DELETE FROM worn WHERE n <= 4000")
            admin.execute("SELECT pg_stat_force_next_flush()")
            report = ask("citadel.advise_vacuum")
            worn = [sentence for sentence in report["advice"] if sentence.startswith("worn: ")]
            assert any("4000 of 5000 rows are dead (80%), last vacuumed never" in sentence for sentence in worn)
            assert any("autovacuum is off" in sentence for sentence in worn)
            admin.execute("VACUUM (ANALYZE) worn")
            admin.execute("SELECT pg_stat_force_next_flush()")
            [sentence] = [s for s in ask("citadel.advise_vacuum")["advice"] if s.startswith("worn: ")]
            assert "autovacuum is off" in sentence
        finally:
            admin.execute("DROP TABLE worn")
    assert {table["table"] for table in report["tables"]} >= set(TABLES)
    assert report["removed"] == 0
