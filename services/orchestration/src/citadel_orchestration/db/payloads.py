"""Context, inputs and outputs of a run's steps, as expressions and results read them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from citadel_common.stores.postgres import Cursor, one
from citadel_orchestration.db.models import StepRef


def context_of(cursor: Cursor, run_id: UUID) -> bytes:
    """Return a run's context as submitted."""
    cursor.execute("SELECT context FROM runs WHERE run_id = %s", [run_id])
    return bytes(one(cursor)[0])


def outputs_of(cursor: Cursor, run_id: UUID, step_ids: Sequence[str]) -> dict[str, dict[int, bytes]]:
    """Return the stored outputs of steps, by step id and item (-1 for the step itself)."""
    cursor.execute(
        "SELECT step_id, item, body FROM payloads WHERE run_id = %s AND kind = 'output' AND step_id = ANY(%s)"
        " ORDER BY step_id, item",
        [run_id, list(step_ids)],
    )
    found: dict[str, dict[int, bytes]] = {}
    for step_id, item, body in cursor.fetchall():
        found.setdefault(step_id, {})[item] = bytes(body)
    return found


def input_of(cursor: Cursor, ref: StepRef) -> bytes | None:
    """Return the stored item of a step of a `for_each`."""
    cursor.execute(
        "SELECT body FROM payloads WHERE run_id = %s AND step_id = %s AND item = %s AND kind = 'input'",
        [ref.run_id, ref.step_id, ref.item],
    )
    row = cursor.fetchone()
    return None if row is None else bytes(row[0])


def states_of(cursor: Cursor, run_id: UUID, step_ids: Sequence[str]) -> list[tuple[str, str, int | None]]:
    """Return id, state and number of items of steps; the number is None for a step without `for_each`."""
    cursor.execute(
        "SELECT step_id, status, items_total FROM steps WHERE run_id = %s AND item = -1 AND step_id = ANY(%s)",
        [run_id, list(step_ids)],
    )
    return cursor.fetchall()


def succeeded_steps(cursor: Cursor, run_id: UUID) -> list[tuple[str, datetime, bool]]:
    """Return the steps that succeeded, in that order: id, end, and whether the output has keys under `data`."""
    cursor.execute(
        "SELECT step_id, finished_at, has_data FROM steps WHERE run_id = %s AND item = -1 AND status = 'succeeded'"
        " ORDER BY finished_at, position",
        [run_id],
    )
    return cursor.fetchall()
