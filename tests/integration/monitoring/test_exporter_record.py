"""Runs and steps, as the exporter tells them, are as they are."""

import psycopg
import pytest
from pydantic import SecretStr

from citadel_common.settings.postgres import PostgresSettings
from citadel_monitoring.exporter import record as record_module
from citadel_monitoring.exporter.record import RecordReader
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


def submit(record, **fields):
    return record.submit({"workflow_id": "w", "steps": [STEP], **fields})


def finished(dsn):
    """What the exporter's own reader tells of runs, by state."""
    reader = RecordReader(SecretStr(dsn), PostgresSettings(), timeout=20)
    samples = reader.read()
    reader._connection.close()
    return {sample.labels[0]: sample.value for sample in samples if sample.metric.name == "citadel_runs"}


def test_an_empty_record(exporter):
    scrape = exporter.scrape()
    assert set(scrape.by("status", "runs").values()) == {0}
    assert scrape.value("runs_oldest_age_seconds", status="queued") == 0
    assert set(scrape.by("kind", "sweep_lag_seconds").values()) == {0}


def test_runs_by_state_and_the_oldest(record, exporter):
    runs = [submit(record) for _ in range(3)]
    record.rows("UPDATE runs SET status = 'paused', created_at = now() - interval '2 hours' WHERE run_id = %s", runs[0])
    record.rows(INSERT, "failed", 4)
    scrape = exporter.scrape()
    by_status = scrape.by("status", "runs")
    assert (by_status["paused"], by_status["failed"], by_status["succeeded"]) == (1, 4, 0)
    assert by_status["queued"] + by_status["running"] == 2
    assert 7200 <= scrape.value("runs_oldest_age_seconds", status="paused") < 8000
    recent = scrape.by("status", "runs_recent")
    assert (recent["paused"], recent["failed"], recent["queued"] + recent["running"]) == (0, 0, 2)


def test_steps_and_how_far_the_sweep_is_behind(record, exporter):
    """A step's lease, a step's time and a run's deadline have passed; a paused run waits for nothing."""
    leased, waiting, paused, late = (submit(record, deadline="2h") for _ in range(4))
    expire = "UPDATE steps SET lease_until = now() - interval '100 seconds' WHERE run_id = %s"
    record.rows(expire, leased)
    record.rows(
        "UPDATE steps SET status = 'waiting', due_at = now() - interval '50 seconds' WHERE run_id = %s", waiting
    )
    record.rows(expire.replace("100", "900"), paused)
    record.rows("UPDATE runs SET status = 'paused' WHERE run_id = %s", paused)
    record.rows("UPDATE runs SET deadline_at = now() - interval '10 seconds' WHERE run_id = %s", late)
    scrape = exporter.scrape()
    assert scrape.by("status", "steps") == {"ready": 3, "running": 0, "waiting": 1}
    assert scrape.by("kind", "steps_overdue") == {"lease": 1, "due": 1}
    lag = scrape.by("kind", "sweep_lag_seconds")
    assert 100 <= lag["lease"] < 900
    assert 50 <= lag["due"] < 100
    assert 10 <= lag["deadline"] < 50


def test_many_finished_runs_are_estimated(record, postgres_dsn, monkeypatch):
    """Beyond the limit the statistics speak; unfinished ones stay exact."""
    monkeypatch.setattr(record_module, "MOST_FINISHED", 100)
    submit(record)
    record.rows(INSERT, "succeeded", 3000)
    record.rows(INSERT, "failed", 99)
    assert finished(postgres_dsn)["succeeded"] == 100
    record.rows("ANALYZE runs")
    found = finished(postgres_dsn)
    assert found["succeeded"] == pytest.approx(3000, rel=0.02)
    assert found["failed"] == 99
    assert found["queued"] + found["running"] == 1


def scans(connection):
    """How often the tables were read by an index, and as a whole, as far as processes have told."""
    query = "SELECT sum(idx_scan), sum(seq_scan) FROM pg_stat_user_tables WHERE relname IN ('runs', 'steps')"
    return connection.execute(query).fetchone()


@pytest.mark.parametrize("common", ["succeeded", "queued"])
def test_no_query_reads_the_whole_table(postgres_dsn, common):
    """Whatever the statistics believe of the states."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(INSERT, [common, 20_000])
        connection.execute("ANALYZE runs")
        connection.execute("UPDATE runs SET status = 'cancelled' WHERE status = 'queued'")
        connection.execute("SELECT pg_stat_force_next_flush()")
        by_index, whole = scans(connection)
        finished(postgres_dsn)
        eventually(lambda: scans(connection)[0] > by_index)  # a server's process tells its counts when it ends
        assert scans(connection)[1] == whole
