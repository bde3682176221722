"""The budget of bytes: `citadel.purge_runs` removes the oldest finished runs while PostgreSQL holds too much."""

import os
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from tests.integration.maintenance.conftest import asked
from tests.support.celery_client import PlainClient
from tests.support.engine_db import EngineDatabase
from tests.support.maintenance import MaintenanceProcess

TASK = "citadel.purge_runs"
WAIT = {"steps": [{"step_id": "w", "type": "wait", "parameters": {"duration": "1h"}}]}
SIZE = 100_000
MAX_BYTES = 3_000_000
"""Thirty runs' bytes; removal begins at 27, and ends at 24."""


@pytest.fixture(autouse=True)
def _empty(runs: EngineDatabase) -> None:
    runs.rows("DELETE FROM runs")


@pytest.fixture(scope="module")
def place(redis_url: str) -> str:
    return redis_url[:-1] + "7"


@pytest.fixture(scope="module")
def plain(place: str, dsn: str) -> Iterator[PlainClient]:
    """A client of a maintenance worker with a budget."""
    settings = {"STORAGE__MAX_BYTES": MAX_BYTES, "MAINTENANCE__RUN_BATCH": 4}
    with MaintenanceProcess(place, dsn, settings), PlainClient(place) as plain:
        yield plain


def run(runs: EngineDatabase, *, hours: float | None) -> UUID:
    """Return a run of 100 kB that ended so many hours ago; None for one that has not ended."""
    run_id = runs.submit(WAIT)
    runs.rows("INSERT INTO payloads VALUES (%s, 'w', -1, 'output', %s)", run_id, os.urandom(SIZE))
    if hours is not None:
        runs.rows(
            "UPDATE runs SET status = 'succeeded', finished_at = now() - make_interval(secs => %s) WHERE run_id = %s",
            hours * 3600,
            run_id,
        )
    return run_id


def notes(report: dict[str, Any]) -> str:
    return " ".join(report["notes"])


def test_the_oldest_finished_runs_go_until_the_budget_is_kept(runs: EngineDatabase, plain: PlainClient) -> None:
    oldest = [run(runs, hours=50 - n) for n in range(40)]
    foretold = asked(plain, TASK, dry_run=True)
    assert len(runs.statuses()) == 40
    report = asked(plain, TASK)
    left = set(runs.statuses())
    assert left == set(oldest[-len(left) :])
    assert 22 <= len(left) <= 24
    assert report["finished"] is True
    over = report["kinds"]["runs_over_budget"]
    assert over == foretold["kinds"]["runs_over_budget"]
    assert over["removed"] == 40 - len(left)
    assert asked(plain, TASK)["removed"] == 0


def test_unfinished_and_young_runs_stay_and_the_report_says_so(runs: EngineDatabase, plain: PlainClient) -> None:
    kept = {run(runs, hours=None) for _ in range(20)} | {run(runs, hours=0.5) for _ in range(12)}
    old = {run(runs, hours=2) for _ in range(3)}
    report = asked(plain, TASK)
    assert set(runs.statuses()) == kept
    assert report["removed"] == len(old)
    assert "CITADEL_STORAGE__PURGE_TO" in notes(report)


def test_nothing_goes_below_the_budget_though_files_never_shrink(runs: EngineDatabase, plain: PlainClient) -> None:
    """The files have grown over the budget in the tests before; what is in use counts."""
    for _ in range(40):
        run(runs, hours=2)
    runs.rows("DELETE FROM runs")
    kept = {run(runs, hours=2) for _ in range(20)}
    assert runs.rows("SELECT allocated_bytes()")[0][0] > MAX_BYTES
    assert asked(plain, TASK)["removed"] == 0
    assert set(runs.statuses()) == kept


def test_runs_that_ended_before_the_update_are_measured_first(runs: EngineDatabase, plain: PlainClient) -> None:
    for n in range(40):
        run(runs, hours=50 - n)
    runs.rows("UPDATE runs SET bytes = NULL")
    asked(plain, TASK)
    assert 22 <= len(runs.statuses()) <= 24


def test_a_run_holds_what_its_tables_do(runs: EngineDatabase) -> None:
    """The recorded bytes of many small runs are of the size that PostgreSQL allocates for them."""
    before = runs.rows("SELECT allocated_bytes()")[0][0]
    many = 5_000
    runs.rows(
        "INSERT INTO runs (run_id, kind, workflow_id, status, lane, labels, fingerprint, depth, definition, context,"
        " steps_total, unfinished, last_event) SELECT gen_random_uuid(), 'workflow', 'w', 'running', 3, '{}',"
        " decode(repeat('00', 16), 'hex'), 0, decode(repeat('00', 200), 'hex'), '{}', 1, 1, 3"
        " FROM generate_series(1, %s)",
        many,
    )
    steps = "INSERT INTO steps (run_id, step_id, item, position, status)"
    runs.rows(f"{steps} SELECT run_id, 's', -1, 0, 'pending' FROM runs")
    runs.rows("INSERT INTO payloads SELECT run_id, 's', -1, 'output', decode(repeat('00', 300), 'hex') FROM runs")
    runs.rows(
        "INSERT INTO events (run_id, seq, type, step_id, data) SELECT run_id, n, 'step_started', 's', '{}'"
        " FROM runs, generate_series(1, 3) AS n"
    )
    runs.rows("UPDATE runs SET status = 'succeeded', finished_at = now()")
    [(held,)] = runs.rows("SELECT sum(bytes) FROM runs")
    grown = runs.rows("SELECT allocated_bytes()")[0][0] - before
    assert 0.5 < held / grown < 2
