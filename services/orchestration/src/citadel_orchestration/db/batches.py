"""Batches: runs whose one step is expanded when they are submitted, chunk by chunk.

A chunk's row counts its requests in `items_total`, `items_done` and `items_failed`; these are empty in rows that older
versions wrote.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import orjson
import psycopg

from citadel_common.errors import Conflict
from citadel_common.stores.postgres import Cursor, Database
from citadel_orchestration.db.models import FINAL_STEP_STATES, NewRun, StepRef
from citadel_orchestration.db.runs import Submitted

STEP = "chunks"
PAGE = 16
"""Chunks of results that one read returns."""


def add_chunk(cursor: Cursor, run_id: UUID, item: int, body: bytes, *, requests: int) -> None:
    """Store a chunk; its body is a JSON list of `requests` requests."""
    cursor.execute(
        "INSERT INTO steps (run_id, step_id, item, position, status, items_total)"
        " VALUES (%s, %s, %s, 0, 'pending', %s)",
        [run_id, STEP, item, requests],
    )
    cursor.execute(
        "INSERT INTO payloads (run_id, step_id, item, kind, body) VALUES (%s, %s, %s, 'input', %s)",
        [run_id, STEP, item, body],
    )


def mark(cursor: Cursor, run: NewRun, digest: bytes, key: str | None) -> Submitted | None:
    """Give a batch, which is recorded before all of it is read, its digest and its idempotency key.

    Returns:
        The same batch, submitted before under that key; the caller rolls this one back. None if there is none.

    Raises:
        Conflict: The key was used for something else.
    """
    if key is not None:
        # Two uploads of the same batch end one after the other here, so that the second one sees the first.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", [key])
        cursor.execute("SELECT run_id, status, fingerprint FROM runs WHERE idempotency_key = %s", [key])
        row = cursor.fetchone()
        if row is not None:
            run_id, status, fingerprint = row
            if fingerprint != digest:
                raise Conflict.at("idempotency_key", f"{key!r} was used for another submission, run {run_id}")
            return Submitted(run_id=run_id, workflow_id=run.workflow_id, status=status, created=False, ready=[])
    try:
        cursor.execute(
            "UPDATE runs SET fingerprint = %s, idempotency_key = %s WHERE run_id = %s", [digest, key, run.run_id]
        )
    except psycopg.errors.UniqueViolation:  # by a workflow that was submitted meanwhile
        raise Conflict.at("idempotency_key", f"{key!r} was used for another submission") from None
    return None


def begin(cursor: Cursor, run_id: UUID, *, chunks: int, parallel: int, republish: float) -> list[int]:
    """Make the first `parallel` chunks ready; return their items.

    Args:
        cursor: Of the transaction that submits the run.
        run_id: The run.
        chunks: Number of chunks.
        parallel: Number of chunks that are worked on at once.
        republish: Seconds after which a ready chunk that nobody has claimed is taken to be lost.
    """
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
    """Count the requests of a chunk that is about to end, all of them as failed where `failed` is None.

    Returns:
        `requests` and `failed`, for the event; an empty dict if the attempt is over.
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
    """Return the chunk that holds a request, and the index of the chunk's first request; None past the end."""
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
    """Read chunks from `first` on that have ended, in order, up to the first that has not.

    Yields:
        Item, state, requests, and either the output or the error.
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
        if status not in FINAL_STEP_STATES:
            return
        yield item, status, orjson.loads(request), None if answer is None else orjson.loads(answer), error
