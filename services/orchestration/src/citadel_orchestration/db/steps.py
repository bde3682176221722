"""Statements on the rows of a run's steps, in a transaction that holds the run's lock."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from citadel_orchestration.db.models import StepRef
from citadel_orchestration.db.transaction import RunTransaction

_LEAVE = """
UPDATE steps SET {}, lease_owner = NULL, attempt_started_at = NULL,
    attempt_before = CASE WHEN began IS NULL THEN attempt_before ELSE %s END
FROM (SELECT attempt_started_at AS began, attempt_before AS earlier FROM steps
    WHERE run_id = %s AND step_id = %s AND item = %s) AS old
WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s AND status = ANY(%s)
RETURNING began, now(), earlier
"""


def leave(
    tx: RunTransaction,
    ref: StepRef,
    attempt: int,
    outcome: str,
    change: str,
    *values: Any,
    of: Sequence[str],
    error: str | None = None,
) -> bool:
    """Ends an attempt that another will follow, and changes the step; False if it is over already.

    Args:
        tx: The run.
        ref: The step.
        attempt: The attempt.
        outcome: How it ends.
        change: What is set beside the lease and the attempt's own columns; `values` are its parameters.
        values: See `change`.
        of: The states in which it may be.
        error: Code of its error.
    """
    tx.cursor.execute(
        _LEAVE.format(change),
        [*values, attempt, ref.run_id, ref.step_id, ref.item, ref.run_id, ref.step_id, ref.item, attempt, list(of)],
    )
    row = tx.cursor.fetchone()
    if row is not None:
        tx.attempt_ended(ref, attempt, outcome, row, error=error)
    return row is not None


def insert_items(tx: RunTransaction, ref: StepRef, bodies: Sequence[bytes]) -> None:
    """Rows and payloads of the items of a `for_each`."""
    tx.cursor.execute(
        "INSERT INTO steps (run_id, step_id, item, position, status) SELECT %s, %s, number - 1, position, 'pending'"
        " FROM generate_series(1, %s) AS number,"
        " (SELECT position FROM steps WHERE run_id = %s AND step_id = %s AND item = -1) AS step",
        [ref.run_id, ref.step_id, len(bodies), ref.run_id, ref.step_id],
    )
    tx.cursor.execute(
        "INSERT INTO payloads (run_id, step_id, item, kind, body) SELECT %s, %s, number - 1, 'input', body"
        " FROM unnest(%s::bytea[]) WITH ORDINALITY AS new (body, number)",
        [ref.run_id, ref.step_id, list(bodies)],
    )


def park(
    tx: RunTransaction,
    ref: StepRef,
    attempt: int,
    *,
    seconds: float | None = None,
    signal: str | None = None,
    child: UUID | None = None,
    items_total: int | None = None,
) -> bool:
    """Lets a running step wait for something else than its own execution."""
    if tx.run.is_finished:
        return False
    tx.cursor.execute(
        "UPDATE steps SET status = 'waiting', lease_owner = NULL, lease_until = NULL, signal = %s,"
        " child_run_id = %s, items_total = %s, due_at = now() + make_interval(secs => %s)"
        " WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s AND status = 'running'",
        [signal, child, items_total, seconds, ref.run_id, ref.step_id, ref.item, attempt],
    )
    return tx.cursor.rowcount > 0


def take_signal(tx: RunTransaction, name: str) -> bytes | None:
    """Consumes the first signal of that name which no wait has taken; its payload, None when there is none."""
    tx.cursor.execute(
        "UPDATE signals SET consumed = true WHERE (run_id, seq) = (SELECT run_id, seq FROM signals"
        " WHERE run_id = %s AND name = %s AND NOT consumed ORDER BY seq LIMIT 1) RETURNING payload",
        [tx.run.run_id, name],
    )
    row = tx.cursor.fetchone()
    return None if row is None else bytes(row[0])
