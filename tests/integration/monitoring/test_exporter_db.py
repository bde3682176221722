"""Metrics of runs and steps."""

import os

import psycopg
import pytest
from pydantic import SecretStr

from citadel_common.settings.postgres import PostgresSettings
from citadel_monitoring.exporter.db import MOST_FINISHED, DatabaseReader
from tests.integration.monitoring.exporter import Exporter
from tests.support.polling import eventually

STEP = {"step_id": "a", "type": "wait", "parameters": {"duration": "1h"}}
INSERT = """
    INSERT INTO runs (run_id, kind, workflow_id, status, lane, labels, fingerprint, depth, definition, context,
        steps_total, unfinished, last_event, created_at, finished_at)
    SELECT gen_random_uuid(), 'workflow', 'w', %s, 3, '{}', '', 0, '', '', 1, 0, 0, now() - interval '1 day', now()
    FROM generate_series(1, %s)
"""


@pytest.fixture
def exporter(redis_url, postgres_dsn):
    with Exporter(redis_url, postgres_dsn) as exporter:
        yield exporter


def submit(db, **fields):
    return db.submit({"workflow_id": "w", "steps": [STEP], **fields})


def runs_by_status(dsn, most_finished=MOST_FINISHED):
    """Return the numbers of runs that the exporter's reader finds, by state."""
    reader = DatabaseReader(SecretStr(dsn), PostgresSettings(), timeout=20, most_finished=most_finished)
    samples = reader.read()
    reader._connection.close()
    return {sample.labels[0]: sample.value for sample in samples if sample.metric.name == "citadel_runs"}


def test_an_empty_database_has_rows_of_zeros(exporter):
    scrape = exporter.scrape()
    assert set(scrape.by("status", "runs").values()) == {0}
    assert scrape.value("runs_oldest_age_seconds", status="queued") == 0
    assert set(scrape.by("kind", "sweep_lag_seconds").values()) == {0}


def test_runs_are_counted_by_state_with_the_age_of_the_oldest(db, exporter):
    runs = [submit(db) for _ in range(3)]
    db.rows("UPDATE runs SET status = 'paused', created_at = now() - interval '2 hours' WHERE run_id = %s", runs[0])
    db.rows(INSERT, "failed", 4)
    scrape = exporter.scrape()
    by_status = scrape.by("status", "runs")
    assert (by_status["paused"], by_status["failed"], by_status["succeeded"]) == (1, 4, 0)
    assert by_status["queued"] + by_status["running"] == 2
    assert 7200 <= scrape.value("runs_oldest_age_seconds", status="paused") < 8000
    recent = scrape.by("status", "runs_recent")
    assert (recent["paused"], recent["failed"], recent["queued"] + recent["running"]) == (0, 0, 2)


def test_overdue_steps_and_runs_are_counted_but_not_those_of_paused_runs(db, exporter):
    leased, waiting, paused, late = (submit(db, deadline="2h") for _ in range(4))
    expire = "UPDATE steps SET lease_until = now() - interval '100 seconds' WHERE run_id = %s"
    db.rows(expire, leased)
    db.rows("UPDATE steps SET status = 'waiting', due_at = now() - interval '50 seconds' WHERE run_id = %s", waiting)
    db.rows(expire.replace("100", "900"), paused)
    db.rows("UPDATE runs SET status = 'paused' WHERE run_id = %s", paused)
    db.rows("UPDATE runs SET deadline_at = now() - interval '10 seconds' WHERE run_id = %s", late)
    scrape = exporter.scrape()
    assert scrape.by("status", "steps") == {"ready": 3, "running": 0, "waiting": 1}
    assert scrape.by("kind", "steps_overdue") == {"lease": 1, "due": 1}
    lag = scrape.by("kind", "sweep_lag_seconds")
    assert 100 <= lag["lease"] < 900
    assert 50 <= lag["due"] < 100
    assert 10 <= lag["deadline"] < 50


def test_steps_that_wait_for_a_slot_are_counted_by_what_they_wait_for(db, exporter):
    for number in range(3):
        reason = "llm:main" if number else "llm:other"
        query = "UPDATE steps SET status = 'waiting', waiting_for = %s, turn = 0 WHERE run_id = %s"
        db.rows(query, reason, submit(db))
    assert exporter.scrape().by("reason", "steps_waiting") == {"llm:main": 2, "llm:other": 1}


def test_only_finished_runs_beyond_the_limit_are_estimated(db, postgres_dsn):
    submit(db)
    db.rows(INSERT, "succeeded", 3000)
    db.rows(INSERT, "failed", 99)
    assert runs_by_status(postgres_dsn, 100)["succeeded"] == 100
    db.rows("ANALYZE runs")
    found = runs_by_status(postgres_dsn, 100)
    assert found["succeeded"] == pytest.approx(3000, rel=0.02)
    assert found["failed"] == 99
    assert found["queued"] + found["running"] == 1


def scans(connection):
    """Return the numbers of index scans and of sequential scans of the tables, as far as sessions reported them."""
    query = "SELECT sum(idx_scan), sum(seq_scan) FROM pg_stat_user_tables WHERE relname IN ('runs', 'steps')"
    return connection.execute(query).fetchone()


@pytest.mark.parametrize("common", ["succeeded", "queued"])
def test_no_query_scans_a_whole_table_whatever_the_statistics(postgres_dsn, common):
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(INSERT, [common, 20_000])
        connection.execute("ANALYZE runs")
        connection.execute("UPDATE runs SET status = 'cancelled' WHERE status = 'queued'")
        connection.execute("SELECT pg_stat_force_next_flush()")
        by_index, whole = scans(connection)
        runs_by_status(postgres_dsn)
        eventually(lambda: scans(connection)[0] > by_index)  # a session reports its counts when it ends
        assert scans(connection)[1] == whole


def test_bytes_and_connections_stand_beside_their_limits(db, redis_url, postgres_dsn):
    run = submit(db)
    db.rows("INSERT INTO payloads VALUES (%s, 's', -1, 'output', %s)", run, os.urandom(500_000))
    db.rows(INSERT, "succeeded", 10)
    with Exporter(redis_url, postgres_dsn, STORAGE__MAX_BYTES=50_000_000) as exporter:
        scrape = exporter.scrape()
    stored = scrape.by("state", "stored_bytes")
    assert 500_000 < stored["unfinished"] < 550_000
    assert 0 < stored["finished"] < 100_000
    assert scrape.value("allocated_bytes") > stored["unfinished"]
    assert scrape.value("storage_limit_bytes") == 50_000_000
    [(most, reserved)] = db.rows(
        "SELECT current_setting('max_connections'), current_setting('superuser_reserved_connections')"
    )
    assert scrape.value("postgres_connections_limit") == int(most) - int(reserved)
    assert 2 <= scrape.value("postgres_connections") < int(most)
