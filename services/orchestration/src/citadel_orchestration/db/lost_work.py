"""Lost work that the sweepers of all workers look for, and the leases that they renew.

These reads take no locks. The transition that follows each of them locks the run and checks again.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from citadel_common.stores.postgres import Cursor
from citadel_orchestration.db.models import EndedRun, ParentStep, StepClaim, StepRef

BATCH = 100
"""Rows of one read; the next sweep reads the rest."""
_ACTIVE = "EXISTS (SELECT 1 FROM runs WHERE runs.run_id = steps.run_id AND status IN ('queued', 'running'))"
_STEPS = f"SELECT run_id, step_id, item, attempt FROM steps WHERE {{}} AND {_ACTIVE} ORDER BY {{}} LIMIT {BATCH}"  # noqa: S608  (constants only)
_UNSTARTED = _STEPS.format("status = 'ready' AND lease_until < now()", "lease_until")
_ABANDONED = _STEPS.format("status = 'running' AND lease_until < now()", "lease_until")
_DUE = _STEPS.format("status = 'waiting' AND due_at <= now() AND waiting_for IS NULL", "due_at")
_LATE_IN_QUEUE = _STEPS.format("status = 'waiting' AND waiting_for IS NOT NULL AND due_at <= now()", "due_at")
_LATE_AND_READY = _STEPS.format("status = 'ready' AND lease_until < now() AND start_by <= now()", "lease_until")
_LATE = f"SELECT run_id FROM runs WHERE finished_at IS NULL AND deadline_at < now() LIMIT {BATCH}"  # noqa: S608
# The worker that ended a run does what follows at once; 2 seconds later it is taken to be dead.
_UNANSWERED = f"""
SELECT run_id, status, reply_to FROM runs WHERE reply_to IS NOT NULL
    AND finished_at < now() - interval '2 seconds' LIMIT {BATCH}
"""  # noqa: S608
# Of these, a worker of an older version has stored the results, and has followed no canvas.
_UNFOLLOWED = f"""
SELECT run_id, status FROM runs WHERE canvases IS NOT NULL AND reply_to IS NULL
    AND finished_at < now() - interval '2 seconds' LIMIT {BATCH}
"""  # noqa: S608
_UNREPORTED = f"""
SELECT steps.run_id, step_id, item, attempt, child_run_id FROM steps JOIN runs ON runs.run_id = child_run_id
WHERE steps.status = 'waiting' AND child_run_id IS NOT NULL
    AND runs.finished_at < now() - interval '2 seconds' LIMIT {BATCH}
"""  # noqa: S608
_ORPHANS = f"""
SELECT child.run_id FROM runs AS child JOIN steps AS parent ON parent.run_id = parent_run_id
    AND parent.step_id = parent_step AND parent.item = parent_item
WHERE child.finished_at IS NULL AND parent_run_id IS NOT NULL
    AND (parent.status <> 'waiting' OR parent.attempt <> parent_attempt)
    AND coalesce(parent.finished_at, '-infinity') < now() - interval '2 seconds' LIMIT {BATCH}
"""  # noqa: S608
# The only statement that locks steps without their run. PostgreSQL ends a deadlock with a transition by failing one of
# the two, and both are repeated.
_RENEW = """
UPDATE steps SET lease_until = now() + make_interval(secs => %s)
FROM unnest(%s::uuid[], %s::text[], %s::int[], %s::int[]) AS mine (run_id, step_id, item, attempt)
WHERE steps.run_id = mine.run_id AND steps.step_id = mine.step_id AND steps.item = mine.item
    AND steps.attempt = mine.attempt AND status = 'running' AND lease_owner = %s
RETURNING steps.run_id, steps.step_id, steps.item, steps.attempt
"""
_LAPSE = """
UPDATE steps SET lease_until = now()
FROM unnest(%s::uuid[], %s::text[], %s::int[], %s::int[]) AS mine (run_id, step_id, item, attempt)
WHERE steps.run_id = mine.run_id AND steps.step_id = mine.step_id AND steps.item = mine.item
    AND steps.attempt = mine.attempt AND status = 'running' AND lease_owner = %s
"""
# A row of the table is written, where there is one: an UPDATE without rows passes on a full disk. It is the row of the
# newest lease: one that PostgreSQL fails at has an old lease, and would keep the others from being recovered.
_WRITE = """
UPDATE steps SET lease_until = lease_until WHERE (run_id, step_id, item) IN (
    SELECT run_id, step_id, item FROM steps WHERE status IN ('ready', 'running') ORDER BY lease_until DESC
    LIMIT 1 FOR UPDATE SKIP LOCKED)
"""


def write_nothing_new(cursor: Cursor) -> None:
    """Write a row of a running step as it is: PostgreSQL takes changes, or this raises its error."""
    cursor.execute(_WRITE)


def unstarted_steps(cursor: Cursor) -> list[tuple[StepRef, int]]:
    """Return ready steps, with their attempts, that no worker has claimed in time: their message was lost."""
    return _steps(cursor, _UNSTARTED)


def abandoned_steps(cursor: Cursor) -> list[tuple[StepRef, int]]:
    """Return running steps, with their attempts, whose lease has run out: their worker is gone."""
    return _steps(cursor, _ABANDONED)


def due_steps(cursor: Cursor) -> list[tuple[StepRef, int]]:
    """Return waiting steps, with their attempts, whose retry, duration or timeout is due."""
    return _steps(cursor, _DUE)


def late_in_queue(cursor: Cursor) -> list[tuple[StepRef, int]]:
    """Return steps, with their attempts, that have waited for a slot for too long."""
    return _steps(cursor, _LATE_IN_QUEUE)


def late_and_ready(cursor: Cursor) -> list[tuple[StepRef, int]]:
    """Return ready steps, with their attempts, that no worker has had room for in time."""
    return _steps(cursor, _LATE_AND_READY)


def late_runs(cursor: Cursor) -> list[UUID]:
    """Return runs past their deadline."""
    return [run_id for (run_id,) in _rows(cursor, _LATE)]


def unanswered_runs(cursor: Cursor) -> list[EndedRun]:
    """Return ended runs whose tasks have no result yet, or are not followed by what should follow them."""
    rows = [*_rows(cursor, _UNANSWERED), *((*row, "") for row in _rows(cursor, _UNFOLLOWED))]
    return [EndedRun(run_id=run_id, status=status, reply_to=reply_to) for run_id, status, reply_to in rows]


def unreported_sub_runs(cursor: Cursor) -> list[tuple[ParentStep, UUID]]:
    """Return sub-runs that have ended, with the steps that still wait for them."""
    return [
        (ParentStep(ref=StepRef(run_id=run_id, step_id=step_id, item=item), attempt=attempt), child)
        for run_id, step_id, item, attempt, child in _rows(cursor, _UNREPORTED)
    ]


def orphaned_runs(cursor: Cursor) -> list[UUID]:
    """Return sub-runs for which no step waits any more."""
    return [run_id for (run_id,) in _rows(cursor, _ORPHANS)]


def renew_leases(cursor: Cursor, claims: Sequence[StepClaim], *, owner: str | None, lease: float) -> list[StepClaim]:
    """Extend the leases of claims to `lease` seconds from now; return the claims that are no longer the owner's."""
    columns = [list(column) for column in zip(*map(_key, claims), strict=True)]
    cursor.execute(_RENEW, [lease, *columns, owner])
    kept = set(cursor.fetchall())
    return [claim for claim in claims if _key(claim) not in kept]


def end_leases(cursor: Cursor, claims: Sequence[StepClaim], *, owner: str | None) -> None:
    """End the leases of claims, whose attempts go on: any worker may take them over at once."""
    columns = [list(column) for column in zip(*map(_key, claims), strict=True)]
    if columns:
        cursor.execute(_LAPSE, [*columns, owner])


def _key(claim: StepClaim) -> tuple[UUID, str, int, int]:
    return claim.ref.run_id, claim.ref.step_id, claim.ref.item, claim.attempt


def _steps(cursor: Cursor, query: str) -> list[tuple[StepRef, int]]:
    return [
        (StepRef(run_id=run_id, step_id=step_id, item=item), attempt)
        for run_id, step_id, item, attempt in _rows(cursor, query)
    ]


def _rows(cursor: Cursor, query: str) -> Iterable[tuple[Any, ...]]:
    cursor.execute(query.encode())
    return cursor.fetchall()
