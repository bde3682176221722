"""Context, inputs and outputs of a run's steps, as expressions and results read them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from citadel_common.stores.postgres import Cursor, one
from citadel_orchestration.db.models import StepRef


def context_of(cursor: Cursor, run_id: UUID, *, most: int | None = None) -> tuple[int, bytes | None]:
    """Return the bytes of a run's context as submitted, and the context; None if it has more than `most` bytes."""
    cursor.execute(
        "SELECT octet_length(context), CASE WHEN octet_length(context) <= coalesce(%s, 2147483647) THEN context END"
        " FROM runs WHERE run_id = %s",
        [most, run_id],
    )
    size, body = one(cursor)
    return int(size), body


def output_of(cursor: Cursor, run_id: UUID, step_id: str, *, most: int | None = None) -> tuple[int, bytes | None]:
    """Return the bytes of a step's own output, 0 for none, and the output; None if it has more than `most` bytes."""
    cursor.execute(
        "SELECT octet_length(body), CASE WHEN octet_length(body) <= coalesce(%s, 2147483647) THEN body END"
        " FROM payloads WHERE run_id = %s AND step_id = %s AND item = -1 AND kind = 'output'",
        [most, run_id, step_id],
    )
    size, body = cursor.fetchone() or (0, None)
    return int(size), body


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


def item_of(cursor: Cursor, ref: StepRef) -> tuple[int, bytes | None]:
    """Return the attempt of the `for_each` that an item belongs to, and the stored item."""
    cursor.execute(
        "SELECT attempt, body FROM steps LEFT JOIN payloads ON payloads.run_id = steps.run_id"
        " AND payloads.step_id = steps.step_id AND payloads.item = %s AND kind = 'input'"
        " WHERE steps.run_id = %s AND steps.step_id = %s AND steps.item = -1",
        [ref.item, ref.run_id, ref.step_id],
    )
    attempt, body = one(cursor)
    return int(attempt), body


def states_and_sizes(cursor: Cursor, run_id: UUID, step_ids: Sequence[str]) -> list[tuple[str, str, int | None, int]]:
    """Return id, state, number of items and bytes of the stored outputs of steps; see `states_of`."""
    cursor.execute(
        "SELECT step_id, status, items_total, (SELECT coalesce(sum(octet_length(body)), 0)::bigint FROM payloads"
        " WHERE payloads.run_id = steps.run_id AND payloads.step_id = steps.step_id AND kind = 'output')"
        " FROM steps WHERE run_id = %s AND item = -1 AND step_id = ANY(%s)",
        [run_id, list(step_ids)],
    )
    return cursor.fetchall()


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


def run_output_size(cursor: Cursor, run_id: UUID) -> int | None:
    """Return the bytes of a run's output; None if it has none."""
    cursor.execute("SELECT octet_length(output) FROM runs WHERE run_id = %s", [run_id])
    size: int | None = one(cursor)[0]
    return size


def output_sizes(cursor: Cursor, run_id: UUID, step_id: str) -> list[tuple[int, int]]:
    """Return the items of a step (-1 for the step itself) that have outputs, and the bytes of these."""
    cursor.execute(
        "SELECT item, octet_length(body) FROM payloads WHERE run_id = %s AND step_id = %s AND kind = 'output'",
        [run_id, step_id],
    )
    return cursor.fetchall()


def bodies_of(cursor: Cursor, run_id: UUID, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
    """Return the stored outputs of steps and items."""
    cursor.execute(
        "SELECT step_id, item, body FROM unnest(%s::text[], %s::int[]) AS wanted (step_id, item)"
        " JOIN payloads USING (step_id, item) WHERE run_id = %s AND kind = 'output'",
        [[step_id for step_id, _ in places], [item for _, item in places], run_id],
    )
    return {(step_id, item): bytes(body) for step_id, item, body in cursor.fetchall()}


def chunk_of(cursor: Cursor, run_id: UUID, step_id: str, item: int, start: int, size: int) -> bytes:
    """Return a part of a stored output, from byte `start`; of the run's own where `step_id` is empty."""
    if step_id:
        cursor.execute(
            "SELECT substring(body FROM %s FOR %s) FROM payloads"
            " WHERE run_id = %s AND step_id = %s AND item = %s AND kind = 'output'",
            [start + 1, size, run_id, step_id, item],
        )
    else:
        cursor.execute("SELECT substring(output FROM %s FOR %s) FROM runs WHERE run_id = %s", [start + 1, size, run_id])
    row = cursor.fetchone()
    return b"" if row is None or row[0] is None else bytes(row[0])
