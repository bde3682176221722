"""Batches: runs whose one step is expanded when they are submitted, chunk by chunk."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import orjson

from citadel_common.backing.database import Cursor, Database

STEP = "chunks"
PAGE = 16
"""Chunks of results read at once."""


def definition_of_batch(workflow_id: str, *, max_parallel: int) -> dict[str, Any]:
    """The definition behind a batch."""
    step = {
        "step_id": STEP,
        "type": "embedding_chunk",
        "on_error": "continue",
        "for_each": {"items": [], "max_parallel": max_parallel},
        "parameters": {"requests": "${{ item }}"},
        "retry": {"max_attempts": 10, "delay": "1s", "max_delay": "30s"},
    }
    return {"workflow_id": workflow_id, "steps": [step]}


def add_chunks(cursor: Cursor, run_id: UUID, first: int, chunks: Sequence[bytes]) -> None:
    """Stores the next chunks; bodies are JSON lists of requests."""
    cursor.execute(
        "INSERT INTO steps (run_id, step_id, item, position, status)"
        " SELECT %s, %s, number, 0, 'pending' FROM generate_series(%s::int, %s::int) AS number",
        [run_id, STEP, first, first + len(chunks) - 1],
    )
    cursor.execute(
        "INSERT INTO payloads (run_id, step_id, item, kind, body) SELECT %s, %s, %s::int + number - 1, 'input', body"
        " FROM unnest(%s::bytea[]) WITH ORDINALITY AS new (body, number)",
        [run_id, STEP, first, list(chunks)],
    )


def begin(cursor: Cursor, run_id: UUID, *, chunks: int, parallel: int, republish: float) -> list[int]:
    """Makes the first chunks ready; their items."""
    cursor.execute(
        "UPDATE steps SET status = 'waiting', items_total = %s, attempt = 1, started_at = now(), lease_until = NULL"
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
