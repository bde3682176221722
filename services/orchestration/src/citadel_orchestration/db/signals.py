"""Signals of a run, in a transaction that holds the run's lock."""

from citadel_orchestration.db.models import StepRef
from citadel_orchestration.db.transaction import RunTransaction


def add_signal(tx: RunTransaction, name: str, payload: bytes) -> tuple[StepRef, int] | None:
    """Store a signal, as consumed if a step waits for it; return that step and its attempt."""
    run_id = tx.run.run_id
    tx.cursor.execute(
        "SELECT step_id, item, attempt FROM steps WHERE run_id = %s AND signal = %s AND status = 'waiting'"
        " ORDER BY position, item LIMIT 1",
        [run_id, name],
    )
    row = tx.cursor.fetchone()
    tx.cursor.execute(
        "INSERT INTO signals (run_id, seq, name, payload, consumed) SELECT %s, coalesce(max(seq), 0) + 1,"
        " %s, %s, %s FROM signals WHERE run_id = %s",
        [run_id, name, payload, row is not None, run_id],
    )
    return None if row is None else (StepRef(run_id=run_id, step_id=row[0], item=row[1]), row[2])


def take_signal(tx: RunTransaction, name: str) -> bytes | None:
    """Consume the oldest signal of that name which no step has taken; return its payload, None if there is none."""
    tx.cursor.execute(
        "UPDATE signals SET consumed = true WHERE (run_id, seq) = (SELECT run_id, seq FROM signals"
        " WHERE run_id = %s AND name = %s AND NOT consumed ORDER BY seq LIMIT 1) RETURNING payload",
        [tx.run.run_id, name],
    )
    row = tx.cursor.fetchone()
    return None if row is None else bytes(row[0])
