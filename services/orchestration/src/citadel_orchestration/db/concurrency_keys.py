"""Concurrency keys: which runs are active, which wait in line, and who is next.

All of it is read from the rows of runs, so nothing can drift. A run is active unless it waits in line; the line is
ordered by the time at which runs came into it. The head of the line starts when fewer runs than its own limit are
active, and no run behind it starts before it.

Rows of an older version, which does not know the line, count as active until `sort_in` has looked at their steps.
"""

from uuid import UUID

from citadel_common.stores.postgres import Cursor, one
from citadel_contracts.runs import WaitingFor
from citadel_orchestration.db.transaction import RunTransaction

MOST_SORTED = 1000
MOST_KEYS = 100
"""Rows, and keys, that one sweep looks at."""
# The conditions of the indexes runs_held, runs_active and runs_unsorted, word for word: else they are not used.
_HELD = "concurrency_key IS NOT NULL AND status = 'queued' AND held_since > 'epoch'"
_ACTIVE = (
    "concurrency_key IS NOT NULL AND status IN ('queued', 'running', 'paused')"
    " AND (held_since IS NULL OR held_since = 'epoch' OR status = 'running')"
)
_UNSORTED = "concurrency_key IS NOT NULL AND status IN ('queued', 'paused') AND held_since = 'epoch'"
# The lock comes after the locks of all runs of the transaction, never before: no transaction that holds it waits for
# another run. Without it two transactions would count before either of them starts a run, and a run could come into
# line unseen while the last active one ends.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_ROOM = f"""
SELECT (SELECT count(*) FROM (
    SELECT FROM runs WHERE {_ACTIVE} AND concurrency_key = %(key)s LIMIT %(limit)s
) AS active) < %(limit)s, EXISTS (SELECT FROM runs WHERE {_HELD} AND concurrency_key = %(key)s)
"""  # noqa: S608
_HEAD = f"""
SELECT run_id FROM (
    SELECT run_id, concurrency_limit AS most FROM runs WHERE {_HELD} AND concurrency_key = %(key)s
    ORDER BY concurrency_key, held_since, run_id LIMIT 1
) AS head
WHERE (SELECT count(*) FROM (
    SELECT FROM runs WHERE {_ACTIVE} AND concurrency_key = %(key)s LIMIT most
) AS active) < most
"""  # noqa: S608
# Later than everybody in line even if the clock was set back.
_HOLD = f"""
UPDATE runs SET held_since = greatest(clock_timestamp(), (
    SELECT max(held_since) + interval '1 microsecond' FROM runs WHERE {_HELD} AND concurrency_key = %s
)) WHERE run_id = %s
"""  # noqa: S608
_NEXT_KEY = f"""
SELECT concurrency_key AS key, concurrency_limit AS most FROM runs WHERE {_HELD} AND concurrency_key > {{}}
ORDER BY concurrency_key, held_since, run_id LIMIT 1
"""  # noqa: S608
# Steps from key to key by the index, instead of reading all runs in line for their distinct keys.
_KEYS = f"""
WITH RECURSIVE line AS (
    ({_NEXT_KEY.format("%s::text")}) UNION ALL
    SELECT next.* FROM line, LATERAL ({_NEXT_KEY.format("line.key")}) AS next
)
SELECT key, most > (SELECT count(*) FROM (
    SELECT FROM runs WHERE {_ACTIVE} AND concurrency_key = key LIMIT most
) AS active) FROM (SELECT * FROM line LIMIT {MOST_KEYS}) AS keys
"""  # noqa: S608
_STARTED = "EXISTS (SELECT FROM steps WHERE steps.run_id = runs.run_id AND steps.status <> 'pending')"
_IS_HELD = f"""
SELECT CASE held_since WHEN 'epoch' THEN NOT {_STARTED} ELSE held_since IS NOT NULL END FROM runs WHERE run_id = %s
"""  # noqa: S608
_SORT_IN = f"""
UPDATE runs SET held_since = CASE WHEN {_STARTED} THEN NULL ELSE created_at END
WHERE run_id IN (
    SELECT run_id FROM runs WHERE {_UNSORTED} ORDER BY created_at LIMIT {MOST_SORTED} FOR UPDATE SKIP LOCKED
)
"""  # noqa: S608
_PLACE = f"""
SELECT concurrency_key, concurrency_limit, (
    SELECT count(*) FROM runs AS earlier WHERE {_HELD} AND concurrency_key = run.concurrency_key
        AND (held_since, run_id) <= (run.held_since, run.run_id)
), held_since FROM runs AS run WHERE run_id = %s AND {_HELD}
"""  # noqa: S608
_OF_ANCESTORS = """
WITH RECURSIVE ancestors AS (
    SELECT run_id, parent_run_id, concurrency_key FROM runs WHERE run_id = %s
    UNION ALL
    SELECT runs.run_id, runs.parent_run_id, runs.concurrency_key FROM runs JOIN ancestors
        ON runs.run_id = ancestors.parent_run_id
)
SELECT run_id FROM ancestors WHERE concurrency_key = %s LIMIT 1
"""


def may_start(cursor: Cursor, key: str, limit: int) -> bool:
    """Return True if a new run of the key may start: there is room, and nobody is in line. Locks the key."""
    room, line = _room(cursor, key, limit)
    return room and not line


def has_room(cursor: Cursor, key: str, limit: int) -> bool:
    """Return True if fewer runs of the key are active than the limit, whoever is in line. Locks the key."""
    return _room(cursor, key, limit)[0]


def _room(cursor: Cursor, key: str, limit: int) -> tuple[bool, bool]:
    cursor.execute(_LOCK, [key])
    cursor.execute(_ROOM, {"key": key, "limit": limit})
    room, line = one(cursor)
    return room, line


def next_in_line(cursor: Cursor, key: str) -> UUID | None:
    """Return the head of the line if it may start, else None. Locks the key."""
    cursor.execute(_LOCK, [key])
    cursor.execute(_HEAD, {"key": key})
    row = cursor.fetchone()
    return None if row is None else row[0]


def hold(cursor: Cursor, key: str, run_id: UUID) -> None:
    """Put a queued run at the end of the line of its key, which is locked."""
    cursor.execute(_HOLD, [key, run_id])


def is_held(tx: RunTransaction) -> bool:
    """Return True for a run that came into line and has not started since; it may be paused."""
    tx.cursor.execute(_IS_HELD, [tx.run.run_id])
    return bool(one(tx.cursor)[0])


def leave_line(tx: RunTransaction) -> None:
    """Make a run active."""
    tx.cursor.execute("UPDATE runs SET held_since = NULL WHERE run_id = %s", [tx.run.run_id])


def place_of(cursor: Cursor, run_id: UUID) -> WaitingFor | None:
    """Return the place of a run in the line of its key; None if it is in none."""
    cursor.execute(_PLACE, [run_id])
    row = cursor.fetchone()
    return None if row is None else WaitingFor(**dict(zip(WaitingFor.model_fields, row, strict=True)))


def ancestor_with(cursor: Cursor, run_id: UUID, key: str) -> UUID | None:
    """Return the run, or the closest run that it is nested in, which has the key; None if there is none."""
    cursor.execute(_OF_ANCESTORS, [run_id, key])
    row = cursor.fetchone()
    return None if row is None else row[0]


def keys_in_line(cursor: Cursor, *, after: str) -> list[tuple[str, bool]]:
    """Return the next `MOST_KEYS` keys with a line, behind the key `after`, and whether the head of each may start."""
    cursor.execute(_KEYS, [after])
    return cursor.fetchall()


def sort_in(cursor: Cursor) -> None:
    """Put runs in line that an older version has recorded as waiting, in the order of their submission."""
    cursor.execute(_SORT_IN)
