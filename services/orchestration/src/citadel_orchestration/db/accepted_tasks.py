"""Accepted tasks: a row for each task that was answered with 202, until it has ended.

The rows outlive a Redis that is emptied; see `citadel_common.delivery.accepted_tasks`.
"""

from collections.abc import Sequence
from uuid import UUID

import orjson
from psycopg.types.json import Jsonb

from citadel_common.delivery.accepted_tasks import TaskMessage
from citadel_common.stores.postgres import Cursor

_ADD = """
INSERT INTO accepted_tasks (task_id, name, kwargs, lane, trace, due_at)
SELECT task_id, name, kwargs, lane, trace, now() + make_interval(secs => %s)
FROM unnest(%s::uuid[], %s::text[], %s::bytea[], %s::smallint[], %s::jsonb[])
    AS new (task_id, name, kwargs, lane, trace)
ON CONFLICT DO NOTHING
"""
_POSTPONE = """
UPDATE accepted_tasks
SET due_at = now() + make_interval(secs => least(%s, greatest(%s, extract(epoch FROM now() - created_at))))
WHERE task_id = ANY(%s)
"""


def add(cursor: Cursor, tasks: Sequence[TaskMessage], *, first_look: float) -> None:
    """Record tasks, to be looked at for the first time in `first_look` seconds."""
    columns = [
        [task.task_id for task in tasks],
        [task.name for task in tasks],
        [orjson.dumps(task.kwargs) for task in tasks],
        [task.priority for task in tasks],
        [Jsonb(task.trace) if task.trace else None for task in tasks],
    ]
    cursor.execute(_ADD, [first_look, *columns])


def due(cursor: Cursor, limit: int) -> list[str]:
    """Return the ids of tasks that are due, locked until the transaction's end."""
    # SKIP LOCKED leaves out what another worker looks at: no task is published twice, and no worker waits.
    cursor.execute(
        "SELECT task_id::text FROM accepted_tasks WHERE due_at <= now() ORDER BY due_at LIMIT %s"
        " FOR UPDATE SKIP LOCKED",
        [limit],
    )
    return [task_id for (task_id,) in cursor.fetchall()]


def message_of(cursor: Cursor, task_id: str) -> TaskMessage:
    """Return the message of a task, to publish it again."""
    cursor.execute("SELECT name, kwargs, lane, trace FROM accepted_tasks WHERE task_id = %s", [task_id])
    [(name, kwargs, lane, trace)] = cursor.fetchall()
    return TaskMessage(task_id=task_id, name=name, kwargs=orjson.loads(kwargs), priority=lane, trace=trace or {})


def forget(cursor: Cursor, task_ids: Sequence[str]) -> None:
    """Delete tasks that have ended."""
    if task_ids:
        cursor.execute("DELETE FROM accepted_tasks WHERE task_id = ANY(%s::uuid[])", [list(task_ids)])


def postpone(cursor: Cursor, task_ids: Sequence[str], *, least: float, most: float) -> None:
    """Make tasks due again when they are twice as old, `least` to `most` seconds from now."""
    if task_ids:
        cursor.execute(_POSTPONE, [most, least, [UUID(task_id) for task_id in task_ids]])


def hasten(cursor: Cursor) -> None:
    """Make all tasks due now, except those that another worker holds locked."""
    cursor.execute(
        "UPDATE accepted_tasks SET due_at = now() WHERE task_id IN"
        " (SELECT task_id FROM accepted_tasks WHERE due_at > now() FOR UPDATE SKIP LOCKED)"
    )


def trace_of(cursor: Cursor, task_id: UUID) -> dict[str, str] | None:
    """Return the trace context of a task that was accepted and is not known to have ended; None without one."""
    cursor.execute("SELECT trace FROM accepted_tasks WHERE task_id = %s", [task_id])
    row = cursor.fetchone()
    return None if row is None else row[0] or {}
