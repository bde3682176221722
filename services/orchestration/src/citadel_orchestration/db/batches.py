"""Batches: runs whose one step is expanded when they are submitted, chunk by chunk.

A chunk's row counts its requests in `items_total`, `items_done` and `items_failed`; one of an older version does not.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import orjson

from citadel_common.stores.postgres import Cursor, Database
from citadel_orchestration.db.models import StepRef

STEP = "chunks"
PAGE = 16
"""Chunks of results read at once."""


def add_chunk(cursor: Cursor, run_id: UUID, item: int, body: bytes, *, requests: int) -> None:
    """Stores a chunk; its body is a JSON list of `requests` requests."""
    cursor.execute(
        "INSERT INTO steps (run_id, step_id, item, position, status, items_total)"
        " VALUES (%s, %s, %s, 0, 'pending', %s)",
        [run_id, STEP, item, requests],
    )
    cursor.execute(
        "INSERT INTO payloads (run_id, step_id, item, kind, body) VALUES (%s, %s, %s, 'input', %s)",
        [run_id, STEP, item, body],
    )


def begin(cursor: Cursor, run_id: UUID, *, chunks: int, parallel: int, republish: float) -> list[int]:
    """Makes the first chunks ready; their items."""
    cursor.execute(
        "UPDATE steps SET status = 'waiting', items_total = %s, attempt = 1, started_at = now(),"
        " attempt_started_at = now(), lease_until = NULL"
        " WHERE run_id = %s AND step_id = %s AND item = -1",
        [chunks, run_id, STEP],
    )
    ready = list(range(min(chunks, parallel)))
    cursor.execute(
        "UPDATE steps SET status = 'ready', lease_until = now() + make_interval(secs => %s)"
        " WHERE run_id = %s AND step_id = %s AND item = ANY(%s)",
        [republish, run_id, STEP, ready],
    )
    return ready


def failed_requests(output: dict[str, Any]) -> int:
    """Count the requests of a chunk that have a text without a vector, from the chunk's output."""
    return sum("error" in result or bool(result.get("errors")) for result in output["results"])


def settle(cursor: Cursor, ref: StepRef, attempt: int, failed: int | None) -> dict[str, int]:
    """Counts the requests of a chunk that is about to end, all of them as failed where `failed` is None.

    Returns:
        `requests` and `failed`, for the event; nothing where the attempt is over.
    """
    cursor.execute(
        "UPDATE steps SET items_done = items_total, items_failed = coalesce(%s, items_total) WHERE run_id = %s"
        " AND step_id = %s AND item = %s AND attempt = %s AND status IN ('running', 'waiting')"
        " AND items_total IS NOT NULL RETURNING items_total, items_failed",
        [failed, ref.run_id, ref.step_id, ref.item, attempt],
    )
    row = cursor.fetchone()
    return {} if row is None else {"requests": row[0], "failed": row[1]}


def place_of(database: Database, run_id: UUID, index: int) -> tuple[int, int] | None:
    """The chunk in which a request is, and the index of the chunk's first; None past the end."""
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT item, coalesce(start, 0) FROM (SELECT item, items_total, sum(items_total) OVER (ORDER BY item)"
            " - items_total AS start FROM steps WHERE run_id = %s AND step_id = %s AND item >= 0) AS chunks"
            " WHERE items_total IS NULL OR start + items_total > %s ORDER BY item LIMIT 1",
            [run_id, STEP, index],
        )
        row = cursor.fetchone()
    return None if row is None else (int(row[0]), int(row[1]))


def results(database: Database, run_id: UUID, first: int) -> Iterator[tuple[int, str, Any, Any, Any]]:
    """Chunks from `first` on that have ended, in order, up to the first that has not.

    Yields:
        Item, state, its requests, its output and its error (of which only one is there).
    """
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT steps.item, status, steps.error, request.body, answer.body FROM steps"
            " JOIN payloads AS request ON (request.run_id, request.step_id, request.item) ="
            " (steps.run_id, steps.step_id, steps.item) AND request.kind = 'input'"
            " LEFT JOIN payloads AS answer ON (answer.run_id, answer.step_id, answer.item) ="
            " (steps.run_id, steps.step_id, steps.item) AND answer.kind = 'output'"
            " WHERE steps.run_id = %s AND steps.step_id = %s AND steps.item >= %s ORDER BY steps.item LIMIT %s",
            [run_id, STEP, first, PAGE],
        )
        rows = cursor.fetchall()
    for item, status, error, request, answer in rows:
        if status not in ("succeeded", "failed", "cancelled"):
            return
        yield item, status, orjson.loads(request), None if answer is None else orjson.loads(answer), error
