"""Statements on a run's steps and signals, in a transaction that holds the run's lock."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from citadel_common.errors import CitadelError
from citadel_common.stores.postgres import one
from citadel_orchestration.db.models import FINAL_STEP_STATES, StepRef, Wait
from citadel_orchestration.db.transaction import RunTransaction

_LEAVE = """
UPDATE steps SET {}, lease_owner = NULL, attempt_started_at = NULL,
    attempt_before = CASE WHEN began IS NULL THEN attempt_before ELSE %s END
FROM (SELECT attempt_started_at AS began, attempt_before AS earlier FROM steps
    WHERE run_id = %s AND step_id = %s AND item = %s) AS old
WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s AND status = ANY(%s)
RETURNING began, now(), earlier
"""
_HAND_BACK = _LEAVE.format(
    "status = 'ready', lease_until = now(), start_by = NULL, waiting_since = NULL, uncounted = steps.uncounted + 1"
)
_LOSE = _LEAVE.format("lease_until = NULL, start_by = NULL")
_RETRY = _LEAVE.format(
    "status = 'waiting', tries = tries + 1, attempt = steps.attempt + 1, uncounted = steps.uncounted + 1, error = %s,"
    " child_run_id = NULL, lease_until = NULL, start_by = NULL, waiting_for = NULL, waiting_since = now(),"
    " due_at = now() + make_interval(secs => %s)"
)
_RESET = """
UPDATE steps SET attempt = attempt + 1, uncounted = uncounted + 1, tries = 0, deaths = 0, error = NULL,
    finished_at = NULL, signal = NULL, waiting_for = NULL, start_by = NULL, items_done = 0, items_failed = 0,
    attempt_before = CASE WHEN attempt_started_at IS NULL THEN attempt_before
        WHEN status = 'cancelled' THEN attempt - 1 ELSE attempt END,
    attempt_started_at = CASE WHEN item = -1 AND items_total IS NOT NULL THEN now() END,
    status = CASE WHEN item = -1 AND items_total IS NOT NULL THEN 'waiting' ELSE 'pending' END
WHERE run_id = %(run_id)s AND step_id = ANY(%(again)s)
    AND (status = 'cancelled' OR status = 'failed' AND (item = -1 OR step_id <> ALL(%(tolerant)s)))
"""
_COUNT_ITEMS = """
UPDATE steps SET items_done = found.done, items_failed = found.failed
FROM (SELECT step_id, count(*) FILTER (WHERE status IN ('succeeded', 'skipped', 'failed')) AS done,
    count(*) FILTER (WHERE status = 'failed') AS failed
    FROM steps WHERE run_id = %(run_id)s AND item >= 0 AND step_id = ANY(%(again)s) GROUP BY step_id) AS found
WHERE run_id = %(run_id)s AND steps.step_id = found.step_id AND item = -1 AND status = 'waiting'
"""

# A ready step becomes a waiting one, which `finish` may end.
_LATE_START = """
UPDATE steps SET status = 'waiting' FROM (
    SELECT waiting_for AS reason, coalesce(waiting_since, runs.created_at) AS since FROM steps JOIN runs USING (run_id)
    WHERE run_id = %s AND step_id = %s AND item = %s) AS old
WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s AND start_by <= now()
    AND (status = 'ready' OR status = 'waiting' AND waiting_for IS NOT NULL)
RETURNING coalesce(reason, 'a worker'), since, now()
"""
_WAIT = "waiting_for, coalesce(waiting_since, now()), now()"


@dataclass(frozen=True, kw_only=True)
class DueWait:
    """A wait whose time has come.

    Attributes:
        signal: Name of the signal that it waits for, if any.
        child: The sub-run that it waits for, if any.
        is_retry: True for a wait between two attempts, false for one that an attempt has begun.
    """

    signal: str | None
    child: UUID | None
    is_retry: bool


def hand_back(tx: RunTransaction, ref: StepRef, attempt: int) -> bool:
    """Make a running step ready for another worker; return False if its attempt is over already."""
    return _leave(tx, _HAND_BACK, [], ref, attempt, "handed_back", of=["running"])


def lose(tx: RunTransaction, ref: StepRef, attempt: int) -> bool:
    """End the attempt of a worker that is gone; return False if it is over already."""
    return _leave(tx, _LOSE, [], ref, attempt, "lost", of=["running"])


def retry_later(tx: RunTransaction, ref: StepRef, attempt: int, error: CitadelError, *, delay: float) -> bool:
    """Let a failed step wait `delay` seconds for its next attempt; return False if its attempt is over already."""
    values = [Jsonb(error.data.model_dump()), delay]
    return _leave(tx, _RETRY, values, ref, attempt, "retried", of=["running", "waiting"], error=error.code)


def _leave(
    tx: RunTransaction,
    statement: str,
    values: Sequence[Any],
    ref: StepRef,
    attempt: int,
    outcome: str,
    *,
    of: Sequence[str],
    error: str | None = None,
) -> bool:
    """End an attempt that another one follows, in a step that is in one of the states `of`."""
    place = [ref.run_id, ref.step_id, ref.item]
    tx.cursor.execute(statement, [*values, attempt, *place, *place, attempt, list(of)])
    row = tx.cursor.fetchone()
    if row is not None:
        tx.attempt_ended(ref, attempt, outcome, row, error=error)
    return row is not None


def insert_items(tx: RunTransaction, ref: StepRef, bodies: Sequence[bytes]) -> None:
    """Insert rows and payloads for the items of a `for_each`."""
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
    """Let a running step wait for a time, a signal, a sub-run or its items; return False if its attempt is over."""
    if tx.run.is_finished:
        return False
    tx.cursor.execute(
        "UPDATE steps SET status = 'waiting', lease_owner = NULL, lease_until = NULL, waiting_for = NULL,"
        " waiting_since = now(), signal = %s, child_run_id = %s, items_total = %s,"
        " due_at = now() + make_interval(secs => %s)"
        " WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s AND status = 'running'",
        [signal, child, items_total, seconds, ref.run_id, ref.step_id, ref.item, attempt],
    )
    return tx.cursor.rowcount > 0


def tries(tx: RunTransaction, ref: StepRef, attempt: int) -> int | None:
    """Return how many attempts of a step have failed; None if the attempt is over."""
    row = _under_way(tx, "tries", ref, attempt, of=["running", "waiting"])
    return None if row is None else int(row[0])


def child_of(tx: RunTransaction, ref: StepRef, attempt: int) -> UUID | None:
    """Return the sub-run that a running step had in an earlier attempt."""
    row = _under_way(tx, "child_run_id", ref, attempt, of=["running"])
    child: UUID | None = None if row is None else row[0]
    return child


def due_wait(tx: RunTransaction, ref: StepRef, attempt: int) -> DueWait | None:
    """Return the wait of a step; None if its time has not come, or it is over."""
    columns = "signal, child_run_id, attempt_started_at IS NULL, due_at <= now() AND waiting_for IS NULL"
    row = _under_way(tx, columns, ref, attempt, of=["waiting"])
    return DueWait(signal=row[0], child=row[1], is_retry=row[2]) if row is not None and row[3] else None


def late_start(tx: RunTransaction, ref: StepRef, attempt: int) -> Wait | None:
    """Return the wait of a step that has not started in time, and let it wait no more; None if it is not late."""
    tx.cursor.execute(_LATE_START, [*[ref.run_id, ref.step_id, ref.item] * 2, attempt])
    row = tx.cursor.fetchone()
    return None if row is None else _wait(*row)


def wait_of(tx: RunTransaction, ref: StepRef, attempt: int) -> Wait | None:
    """Return the wait of a step for a slot; None if it waits for none, or it is over."""
    row = _under_way(tx, _WAIT, ref, attempt, of=["waiting"])
    return None if row is None else _wait(*row)


def _wait(waiting_for: str | None, since: datetime, until: datetime) -> Wait | None:
    return None if waiting_for is None else Wait(waiting_for=waiting_for, since=since, until=until)


def _under_way(
    tx: RunTransaction, columns: str, ref: StepRef, attempt: int, *, of: Sequence[str]
) -> tuple[Any, ...] | None:
    tx.cursor.execute(
        f"SELECT {columns} FROM steps WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s"  # noqa: S608  (column names only)
        " AND status = ANY(%s)",
        [ref.run_id, ref.step_id, ref.item, attempt, list(of)],
    )
    row: tuple[Any, ...] | None = tx.cursor.fetchone()
    return row


def count_death(tx: RunTransaction, ref: StepRef, attempt: int) -> tuple[int, str] | None:
    """Count the death of the worker of a running step whose lease has run out.

    Returns:
        The deaths so far and the step's state; None if the lease was renewed, or the attempt is over.
    """
    # The lease is checked again here: its owner may have renewed it since the sweeper read it.
    tx.cursor.execute(
        "UPDATE steps SET deaths = deaths + (status = 'running')::int WHERE run_id = %s AND step_id = %s"
        " AND item = %s AND attempt = %s AND status IN ('ready', 'running') AND lease_until < now()"
        " RETURNING deaths, status",
        [ref.run_id, ref.step_id, ref.item, attempt],
    )
    row: tuple[int, str] | None = tx.cursor.fetchone()
    return row


def count_item(tx: RunTransaction, step_id: str, *, failed: bool) -> tuple[int, int, int] | None:
    """Count an item that has ended; return attempt, items and ended items of its step, None if that has ended."""
    tx.cursor.execute(
        "UPDATE steps SET items_done = items_done + 1, items_failed = items_failed + %s"
        " WHERE run_id = %s AND step_id = %s AND item = -1 AND status = 'waiting'"
        " RETURNING attempt, items_total, items_done",
        [int(failed), tx.run.run_id, step_id],
    )
    row: tuple[int, int, int] | None = tx.cursor.fetchone()
    return row


def pending_items(tx: RunTransaction, step_id: str, limit: int) -> list[StepRef]:
    """Return the next items to start."""
    tx.cursor.execute(
        "SELECT item FROM steps WHERE run_id = %s AND step_id = %s AND status = 'pending' AND item >= 0"
        " ORDER BY item LIMIT %s",
        [tx.run.run_id, step_id, limit],
    )
    return [StepRef(run_id=tx.run.run_id, step_id=step_id, item=item) for (item,) in tx.cursor.fetchall()]


def started_items(tx: RunTransaction, step_id: str) -> int:
    """Return how many items have started and not ended."""
    tx.cursor.execute(
        "SELECT count(*) FROM steps WHERE run_id = %s AND step_id = %s AND item >= 0"
        " AND status IN ('ready', 'running', 'waiting')",
        [tx.run.run_id, step_id],
    )
    return int(one(tx.cursor)[0])


def reset(tx: RunTransaction, again: Sequence[str], *, tolerant: Collection[str]) -> None:
    """Make steps pending that failed or were cancelled; failed items of `tolerant` steps stay as they are."""
    values = {"run_id": tx.run.run_id, "again": list(again), "tolerant": list(tolerant)}
    tx.cursor.execute(_RESET, values)
    tx.cursor.execute(_COUNT_ITEMS, values)


def unfinished(tx: RunTransaction) -> int:
    """Return how many steps have not ended."""
    tx.cursor.execute(
        "SELECT count(*) FROM steps WHERE run_id = %s AND item = -1 AND status <> ALL(%s)",
        [tx.run.run_id, list(FINAL_STEP_STATES)],
    )
    return int(one(tx.cursor)[0])


def parent_waits(tx: RunTransaction) -> bool:
    """Return True if the step that started this run still waits for it, or no step started it."""
    parent = tx.run.parent
    if parent is None:
        return True
    tx.cursor.execute(
        "SELECT EXISTS (SELECT 1 FROM steps WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s"
        " AND status = 'waiting')",
        [parent.ref.run_id, parent.ref.step_id, parent.ref.item, parent.attempt],
    )
    return bool(one(tx.cursor)[0])


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
