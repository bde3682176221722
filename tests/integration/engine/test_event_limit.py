"""The events of one run have a limit; the run itself goes on to its end."""

from citadel_orchestration.engine.transactions import RunTransactions
from tests.support.engine_db import EngineDatabase

STEPS = [{"step_id": f"s{n}", "type": "wait", "parameters": {"duration": "1ms"}} for n in range(6)]


def test_a_run_with_too_many_events_records_only_its_own_and_still_succeeds(shared_record: EngineDatabase) -> None:
    db = shared_record
    transactions = RunTransactions(
        database=db.database, definitions=db.definitions, owner="the test", lease=60, max_events=5
    )
    run = db.submit({"workflow_id": "chatty", "steps": STEPS})
    for step in STEPS:
        with transactions.on(run) as tx:
            assert tx is not None
            tx.event("step_started", step["step_id"])
            tx.event("step_succeeded", step["step_id"])
    with transactions.on(run) as tx:
        assert tx is not None
        tx.end("succeeded")
    types = [type_ for type_, _, _ in db.events(run)]
    assert types == [
        "run_submitted",
        "step_started",
        "step_succeeded",
        "step_started",
        "events_limited",
        "run_succeeded",
    ]
    [(data,)] = db.rows("SELECT data FROM events WHERE run_id = %s AND type = 'events_limited'", run)
    assert data == {"limit": 5}
