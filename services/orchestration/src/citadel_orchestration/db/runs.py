"""Statements on the rows of runs: submission, results, sub-runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from citadel_common.errors import Conflict, NotFound
from citadel_common.stores.postgres import Cursor, one
from citadel_common.telemetry import tracing
from citadel_orchestration.db import concurrency_keys
from citadel_orchestration.db.models import NewRun
from citadel_orchestration.db.transaction import RunTransaction

BETWEEN_TASKS = "\n"
"""Between the ids in `reply_to`."""
_SUBMIT = """
WITH run AS (
    INSERT INTO runs (run_id, kind, workflow_id, status, lane, labels, idempotency_key, fingerprint, concurrency_key,
        concurrency_limit, parent_run_id, parent_step, parent_item, parent_attempt, depth, reply_to, canvases,
        definition, context, steps_total, unfinished, last_event, trace, caller, deadline_at, held_since)
    VALUES (%(run_id)s, %(kind)s, %(workflow_id)s, 'queued', %(lane)s, %(labels)s, %(idempotency_key)s,
        %(fingerprint)s, %(concurrency_key)s, %(concurrency_limit)s, %(parent_run_id)s, %(parent_step)s,
        %(parent_item)s, %(parent_attempt)s, %(depth)s, %(reply_to)s,
        CASE WHEN %(canvas)s::bytea IS NOT NULL THEN ARRAY[%(canvas)s::bytea] END, %(definition)s, %(context)s,
        %(total)s, %(total)s, 1, %(trace)s,
        coalesce(%(caller)s::text, (SELECT caller FROM runs WHERE run_id = %(parent_run_id)s)),
        now() + make_interval(secs => %(deadline)s), NULL)
    ON CONFLICT DO NOTHING RETURNING run_id
), its_steps AS (
    INSERT INTO steps (run_id, step_id, item, position, status, lease_until, start_by)
    SELECT run_id, step_id, -1, position - 1, CASE WHEN step_id = ANY(%(ready)s) THEN 'ready' ELSE 'pending' END,
        CASE WHEN step_id = ANY(%(ready)s) THEN now() + make_interval(secs => %(republish)s) END,
        CASE WHEN step_id = ANY(%(ready)s) THEN now() + make_interval(secs => patience) END
    FROM run, unnest(%(steps)s::text[], %(start_timeouts)s::float8[])
        WITH ORDINALITY AS new (step_id, patience, position)
), its_event AS (
    INSERT INTO events (run_id, seq, type, data) SELECT run_id, 1, 'run_submitted', '{}' FROM run
)
SELECT run_id FROM run
"""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A submitted run; `created` is False where the same submission was recorded before."""

    run_id: UUID
    workflow_id: str
    status: str
    created: bool
    ready: list[str]


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """State, output (as JSON) and error of a run; the error names the run's trace.

    Attributes:
        canvases: What follows the tasks that the run answers, each as JSON.
    """

    kind: str
    workflow_id: str
    status: str
    output: bytes | None
    error: dict[str, Any] | None
    canvases: list[bytes]


def submit(cursor: Cursor, run: NewRun, *, republish: float) -> Submitted:
    """Record a run with its steps; its roots are ready, unless it must wait for others of its concurrency key.

    Args:
        cursor: Of the transaction.
        run: The run.
        republish: Seconds after which a ready step that nobody has claimed is taken to be lost.

    Raises:
        Conflict: Its idempotency key was used for something else.
    """
    key, limit = run.concurrency_key, run.concurrency_limit
    held = key is not None and limit is not None and not concurrency_keys.may_start(cursor, key, limit)
    parent = run.parent
    values: dict[str, Any] = vars(run) | {
        "labels": Jsonb(run.labels),
        "trace": None if run.trace is None else Jsonb(run.trace),
        "total": len(run.steps),
        "parent_run_id": parent and parent.ref.run_id,
        "parent_step": parent and parent.ref.step_id,
        "parent_item": parent and parent.ref.item,
        "parent_attempt": parent and parent.attempt,
    }
    ready = [] if held else list(run.roots)
    cursor.execute(_SUBMIT, values | {"ready": ready, "republish": republish})
    if cursor.rowcount == 0:
        return _existing(cursor, run)
    if key is not None and held:
        concurrency_keys.hold(cursor, key, run.run_id)
    return Submitted(run_id=run.run_id, workflow_id=run.workflow_id, status="queued", created=True, ready=ready)


def _existing(cursor: Cursor, run: NewRun) -> Submitted:
    cursor.execute(
        "SELECT run_id, workflow_id, status, fingerprint FROM runs WHERE run_id = %s OR idempotency_key = %s",
        [run.run_id, run.idempotency_key],
    )
    run_id, workflow_id, status, fingerprint = one(cursor)
    if fingerprint != run.fingerprint:
        raise Conflict.at("idempotency_key", f"{run.idempotency_key!r} was used for another submission, run {run_id}")
    if run.reply_to is not None:
        _add_reply_to(cursor, run_id, run.reply_to, run.canvas)
    return Submitted(run_id=run_id, workflow_id=workflow_id, status=status, created=False, ready=[])


def _add_reply_to(cursor: Cursor, run_id: UUID, task_id: str, canvas: bytes | None) -> None:
    """Let a run answer one more task; for a run that has ended already, the sweeper stores the result."""
    cursor.execute(
        "UPDATE runs SET reply_to = concat_ws(%s::text, reply_to, %s::text) WHERE run_id = %s"
        " AND %s::text <> ALL(string_to_array(coalesce(reply_to, ''), %s::text))",
        [BETWEEN_TASKS, task_id, run_id, task_id, BETWEEN_TASKS],
    )
    if canvas is not None:
        cursor.execute(
            "UPDATE runs SET canvases = array_append(canvases, %s::bytea) WHERE run_id = %s"
            " AND %s::bytea <> ALL(coalesce(canvases, '{}'))",
            [canvas, run_id, canvas],
        )


def clear_reply_to(cursor: Cursor, run_id: UUID, reply_to: str | None, canvases: list[bytes]) -> None:
    """Note that tasks have their results, and what follows them is published; one added meanwhile is still to do."""
    cursor.execute(
        "UPDATE runs SET reply_to = NULL, canvases = NULL WHERE run_id = %s AND reply_to IS NOT DISTINCT FROM %s"
        " AND coalesce(canvases, '{}') = %s::bytea[]",
        [run_id, reply_to, canvases],
    )


def exists(cursor: Cursor, run_id: UUID) -> bool:
    """Return whether a run is recorded."""
    return cursor.execute("SELECT FROM runs WHERE run_id = %s", [run_id]).fetchone() is not None


def of_tasks(cursor: Cursor, tasks: Mapping[UUID, str]) -> list[tuple[UUID, str]]:
    """Return the runs that have not ended and whose result is wanted by nobody but their task, with its id.

    Args:
        cursor: Of the transaction.
        tasks: Ids of tasks by the run that each would have begun.
    """
    cursor.execute(
        "SELECT run_id, reply_to FROM runs JOIN unnest(%s::uuid[], %s::text[]) AS task (begun, task_id)"
        " ON run_id = begun AND reply_to = task_id WHERE finished_at IS NULL",
        [list(tasks), list(tasks.values())],
    )
    return list(cursor.fetchall())


def definition_of(cursor: Cursor, run_id: UUID) -> bytes:
    """Return a run's definition as submitted.

    Raises:
        NotFound: There is no such run.
    """
    cursor.execute("SELECT definition FROM runs WHERE run_id = %s", [run_id])
    row = cursor.fetchone()
    if row is None:
        raise NotFound(f"there is no run {run_id}")
    return bytes(row[0])


def outcome_of(cursor: Cursor, run_id: UUID) -> RunOutcome:
    """Return the outcome of a run; one that has not ended has no output and no error.

    Raises:
        NotFound: The run was removed.
    """
    cursor.execute(
        "SELECT kind, workflow_id, status, output, error, trace, canvases FROM runs WHERE run_id = %s", [run_id]
    )
    kind, workflow_id, status, output, error, trace, canvases = one(cursor)
    error = error and {"trace_id": tracing.trace_id_in(trace)} | error
    canvases = [bytes(canvas) for canvas in canvases or []]
    return RunOutcome(kind=kind, workflow_id=workflow_id, status=status, output=output, error=error, canvases=canvases)


def children_of(cursor: Cursor, run_id: UUID) -> list[UUID]:
    """Return the sub-runs of a run that have not ended."""
    cursor.execute("SELECT run_id FROM runs WHERE parent_run_id = %s AND finished_at IS NULL", [run_id])
    return [child for (child,) in cursor.fetchall()]


def set_parent_attempt(tx: RunTransaction, attempt: int) -> None:
    """Give a sub-run to a later attempt of the step that started it."""
    tx.cursor.execute("UPDATE runs SET parent_attempt = %s WHERE run_id = %s", [attempt, tx.run.run_id])
    tx.run.parent_attempt = attempt


def is_late(tx: RunTransaction) -> bool:
    """Return True past the run's deadline, by PostgreSQL's clock."""
    tx.cursor.execute("SELECT deadline_at < now() FROM runs WHERE run_id = %s", [tx.run.run_id])
    return bool(one(tx.cursor)[0])


def seconds_left(tx: RunTransaction) -> float | None:
    """Return the seconds until the run's deadline, by PostgreSQL's clock; None if it has none."""
    tx.cursor.execute("SELECT extract(epoch FROM %s::timestamptz - clock_timestamp())::float8", [tx.run.deadline_at])
    left: float | None = one(tx.cursor)[0]
    return left


def reopen(tx: RunTransaction, deadline: float | None) -> datetime:
    """Make an ended run active again, with a deadline in so many seconds; return PostgreSQL's time."""
    tx.cursor.execute(
        "UPDATE runs SET finished_at = NULL WHERE run_id = %s"
        " RETURNING CASE WHEN %s::float8 IS NULL THEN NULL ELSE now() + make_interval(secs => %s) END, now()",
        [tx.run.run_id, deadline, deadline],
    )
    tx.run.status, tx.run.error, tx.run.output = "running", None, None
    tx.run.deadline_at, now = one(tx.cursor)
    found: datetime = now
    return found


def set_trace(tx: RunTransaction, trace: dict[str, str]) -> None:
    """Replace the trace context of a run."""
    tx.cursor.execute("UPDATE runs SET trace = %s WHERE run_id = %s", [Jsonb(trace), tx.run.run_id])
    tx.run.trace = trace
