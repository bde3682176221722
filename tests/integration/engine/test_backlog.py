"""The backlog's limit in the workers: tasks of plain Celery clients wait for room, accepted work goes on."""

import pytest

from citadel_orchestration.db import capacity
from tests.support.engine_db import EngineDatabase
from tests.support.polling import eventually

SHORT = {"step_id": "s", "type": "wait", "parameters": {"duration": "1ms"}}
NESTED = {"steps": [{"step_id": "n", "type": "workflow", "parameters": {"definition": {"steps": [SHORT]}}}]}
MANY = 100_000


@pytest.fixture
def full(platform):
    """A platform whose worker takes no run, since one step waits that no worker begins."""
    run = platform.db.submit({"steps": [SHORT]})
    platform.db.rows("UPDATE steps SET lease_until = now() + interval '1 day' WHERE run_id = %s", run)
    platform.orchestration(WORKFLOWS__MAX_BACKLOG="1", WORKER__RETRY__CAP="0.5", WORKER__RETRY__MAX_RETRIES="1000")
    return platform


def test_a_plain_clients_workflow_waits_for_room_and_then_runs(full):
    result = full.send("execute_workflow", {"workflow_id": "later", "steps": [SHORT]})
    eventually(lambda: result.state == "RETRY")
    assert full.db.rows("SELECT 1 FROM runs WHERE workflow_id = 'later'") == []
    full.db.rows("UPDATE runs SET status = 'paused'")
    assert result.get(timeout=60)["success"] is True


def test_sub_runs_of_accepted_runs_are_never_refused(full):
    assert full.db.ended(full.begin(NESTED)) == "succeeded"


def test_the_count_reads_no_more_than_its_limit_however_many_steps_there_are(shared_record: EngineDatabase):
    """Tens of thousands of steps are ready, wait for a slot, or have ended: the plan stops at its limits."""
    db, run = shared_record, shared_record.submit({"steps": [SHORT]})
    db.rows(
        "INSERT INTO steps (run_id, step_id, item, position, status, lease_until) SELECT %s, 'more', n, 0,"
        " (ARRAY['ready', 'succeeded', 'waiting'])[1 + mod(n, 3)], now() FROM generate_series(1, %s) AS n",
        run,
        MANY,
    )
    db.rows("UPDATE steps SET waiting_for = 'llm/main', turn = item WHERE status = 'waiting' AND run_id = %s", run)
    with db.database.cursor() as cursor:
        found = capacity.unbegun_steps(cursor, most=100)
        assert found.total == 200
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + capacity.UNBEGUN, {"most": 100})
        [[[plan]]] = cursor.fetchall()
    read = [node for node in nodes(plan["Plan"]) if node.get("Relation Name") == "steps"]
    assert [(node["Node Type"], node["Actual Rows"]) for node in read] == [("Index Scan", 100)] * 2


def nodes(plan):
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)
