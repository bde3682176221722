"""Submitting runs, and reading what the engine needs of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from citadel_common.errors import Conflict, NotFound
from citadel_common.stores.postgres import Cursor, one
from citadel_orchestration.db.models import NewRun
from citadel_orchestration.db.transaction import CHANNEL

BETWEEN_TASKS = "\n"
"""Between the ids in `reply_to`."""
_SUBMIT = """
WITH run AS (
    INSERT INTO runs (run_id, kind, workflow_id, status, lane, labels, idempotency_key, fingerprint, concurrency_key,
        concurrency_limit, parent_run_id, parent_step, parent_item, parent_attempt, depth, reply_to, definition,
        context, steps_total, unfinished, last_event, trace, deadline_at)
    VALUES (%(run_id)s, %(kind)s, %(workflow_id)s, 'queued', %(lane)s, %(labels)s, %(idempotency_key)s,
        %(fingerprint)s, %(concurrency_key)s, %(concurrency_limit)s, %(parent_run_id)s, %(parent_step)s,
        %(parent_item)s, %(parent_attempt)s, %(depth)s, %(reply_to)s, %(definition)s, %(context)s, %(total)s,
        %(total)s, 1, %(trace)s, now() + make_interval(secs => %(deadline)s))
    ON CONFLICT DO NOTHING RETURNING run_id
), its_steps AS (
    INSERT INTO steps (run_id, step_id, item, position, status, lease_until)
    SELECT run_id, step_id, -1, position - 1, CASE WHEN step_id = ANY(%(ready)s) THEN 'ready' ELSE 'pending' END,
        CASE WHEN step_id = ANY(%(ready)s) THEN now() + make_interval(secs => %(republish)s) END
    FROM run, unnest(%(steps)s::text[]) WITH ORDINALITY AS new (step_id, position)
), its_event AS (
    INSERT INTO events (run_id, seq, type, data) SELECT run_id, 1, 'run_submitted', '{}' FROM run
)
SELECT pg_notify(%(channel)s, run_id::text) FROM run
"""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What became of a submission; `created` is False for one that was there already."""

    run_id: UUID
    workflow_id: str
    status: str
    created: bool
    ready: list[str]


def submit(cursor: Cursor, run: NewRun, *, republish: float) -> Submitted:
    """Records a run with its steps; its roots are ready, unless the concurrency limit of its key is reached.

    Raises:
        Conflict: Its idempotency key was used for something else.
    """
    held = _is_held(cursor, run)
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
    cursor.execute(_SUBMIT, values | {"ready": ready, "republish": republish, "channel": CHANNEL})
    if cursor.rowcount == 0:
        return _existing(cursor, run)
    return Submitted(run_id=run.run_id, workflow_id=run.workflow_id, status="queued", created=True, ready=ready)


def _is_held(cursor: Cursor, run: NewRun) -> bool:
    """Whether the run must wait for others of its key; the key is locked until the commit."""
    if run.concurrency_key is None or run.concurrency_limit is None:
        return False
    return room_of_key(cursor, run.concurrency_key, run.concurrency_limit) <= 0


def room_of_key(cursor: Cursor, key: str, limit: int) -> int:
    """How many more runs of the key may start; locks the key until the commit."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
    cursor.execute(
        """
        SELECT count(*) FROM runs WHERE concurrency_key = %s AND finished_at IS NULL
            AND EXISTS (SELECT 1 FROM steps WHERE steps.run_id = runs.run_id AND steps.status <> 'pending')
        """,
        [key],
    )
    [count] = one(cursor)
    return limit - int(count)


def _existing(cursor: Cursor, run: NewRun) -> Submitted:
    cursor.execute(
        "SELECT run_id, workflow_id, status, fingerprint FROM runs WHERE run_id = %s OR idempotency_key = %s",
        [run.run_id, run.idempotency_key],
    )
    run_id, workflow_id, status, fingerprint = one(cursor)
    if fingerprint != run.fingerprint:
        raise Conflict.at("idempotency_key", f"{run.idempotency_key!r} was used for another submission, run {run_id}")
    if run.reply_to is not None:
        _answer_too(cursor, run_id, run.reply_to)
    return Submitted(run_id=run_id, workflow_id=workflow_id, status=status, created=False, ready=[])


def _answer_too(cursor: Cursor, run_id: UUID, task_id: str) -> None:
    """Lets a run answer one more task; a run that has ended already does so by the sweep."""
    cursor.execute(
        "UPDATE runs SET reply_to = concat_ws(%s::text, reply_to, %s::text) WHERE run_id = %s"
        " AND %s::text <> ALL(string_to_array(coalesce(reply_to, ''), %s::text))",
        [BETWEEN_TASKS, task_id, run_id, task_id, BETWEEN_TASKS],
    )


def definition_of(cursor: Cursor, run_id: UUID) -> bytes:
    """A run's definition as submitted.

    Raises:
        NotFound: There is no such run.
    """
    cursor.execute("SELECT definition FROM runs WHERE run_id = %s", [run_id])
    row = cursor.fetchone()
    if row is None:
        raise NotFound(f"there is no run {run_id}")
    return bytes(row[0])


def context_of(cursor: Cursor, run_id: UUID) -> bytes:
    """A run's context as submitted."""
    cursor.execute("SELECT context FROM runs WHERE run_id = %s", [run_id])
    return bytes(one(cursor)[0])


def outputs_of(cursor: Cursor, run_id: UUID, step_ids: Sequence[str]) -> dict[str, dict[int, bytes]]:
    """The stored outputs of steps, by step id and item (-1 for the step itself)."""
    cursor.execute(
        "SELECT step_id, item, body FROM payloads WHERE run_id = %s AND kind = 'output' AND step_id = ANY(%s)"
        " ORDER BY step_id, item",
        [run_id, list(step_ids)],
    )
    found: dict[str, dict[int, bytes]] = {}
    for step_id, item, body in cursor.fetchall():
        found.setdefault(step_id, {})[item] = bytes(body)
    return found
