"""What a retry runs again: what the run ended badly of, and nothing that succeeded or was put up with."""

from collections.abc import Mapping
from datetime import datetime

from psycopg.types.json import Jsonb

from citadel_common.errors import ExpressionFailed, InvalidInput
from citadel_common.stores.postgres import one
from citadel_orchestration.db.models import FINAL_STEP_STATES
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.definition.definition import Definition
from citadel_orchestration.definition.template import References
from citadel_orchestration.engine import traces

_EVALUATION = (ExpressionFailed.code, InvalidInput.code)
"""Errors of a step, or of the output, that could not make use of what it read."""
_RESET = """
UPDATE steps SET attempt = attempt + 1, tries = 0, deaths = 0, error = NULL, finished_at = NULL, signal = NULL,
    items_done = 0, items_failed = 0,
    attempt_before = CASE WHEN attempt_started_at IS NULL THEN attempt_before
        WHEN status = 'cancelled' THEN attempt - 1 ELSE attempt END,
    attempt_started_at = CASE WHEN item = -1 AND items_total IS NOT NULL THEN now() END,
    status = CASE WHEN item = -1 AND items_total IS NOT NULL THEN 'waiting' ELSE 'pending' END
WHERE run_id = %(run_id)s AND step_id = ANY(%(again)s)
    AND (status = 'cancelled' OR status = 'failed' AND (item = -1 OR step_id <> ALL(%(tolerant)s)))
"""
_COUNT = """
UPDATE steps SET items_done = found.done, items_failed = found.failed
FROM (SELECT step_id, count(*) FILTER (WHERE status IN ('succeeded', 'skipped', 'failed')) AS done,
    count(*) FILTER (WHERE status = 'failed') AS failed
    FROM steps WHERE run_id = %(run_id)s AND item >= 0 AND step_id = ANY(%(again)s) GROUP BY step_id) AS found
WHERE run_id = %(run_id)s AND steps.step_id = found.step_id AND item = -1 AND status = 'waiting'
"""


def reset(tx: RunTransaction, definition: Definition, deadline: float | None) -> None:
    """Makes a run that has ended active again; a step that had a sub-run keeps it, to go on with.

    Args:
        tx: The run.
        definition: Of it.
        deadline: Seconds that it may take from now on.
    """
    run_id = tx.run.run_id
    tolerant = [step.step_id for step in definition.steps.values() if step.on_error == "continue"]
    again = _to_repeat(tx, definition, frozenset(tolerant))
    tx.cursor.execute(_RESET, {"run_id": run_id, "again": again, "tolerant": tolerant})
    tx.cursor.execute(_COUNT, {"run_id": run_id, "again": again})
    tx.cursor.execute(
        "SELECT count(*) FROM steps WHERE run_id = %s AND item = -1 AND status <> ALL(%s)",
        [run_id, list(FINAL_STEP_STATES)],
    )
    tx.run.unfinished = int(one(tx.cursor)[0])
    tx.run.status, tx.run.error, tx.run.output = "running", None, None
    tx.cursor.execute(
        "UPDATE runs SET finished_at = NULL WHERE run_id = %s"
        " RETURNING CASE WHEN %s::float8 IS NULL THEN NULL ELSE now() + make_interval(secs => %s) END, now()",
        [run_id, deadline, deadline],
    )
    tx.run.deadline_at, now = one(tx.cursor)
    _trace_anew(tx, now)


def _trace_anew(tx: RunTransaction, now: datetime) -> None:
    """Gives the run a new root span, since that of its first course has ended with it."""
    trace = traces.of_retry(tx.run.run_id, tx.run.trace, since=now, event=tx.run.last_event)
    if trace is not None and trace != tx.run.trace:
        tx.run.trace = trace
        tx.cursor.execute("UPDATE runs SET trace = %s WHERE run_id = %s", [Jsonb(trace), tx.run.run_id])


def _to_repeat(tx: RunTransaction, definition: Definition, tolerant: frozenset[str]) -> list[str]:
    """Steps that failed the run or did not come to their end, and tolerated failures that were its undoing."""
    states = tx.statuses(definition.steps)
    tolerated = {step_id for step_id, state in states.items() if state == "failed" and step_id in tolerant}
    undone = [step_id for step_id, state in states.items() if state in ("failed", "cancelled")]
    blamed = _read_by_what_failed(tx.run.error or {}, definition)
    return [step_id for step_id in undone if step_id not in tolerated or _is_read(step_id, blamed)]


def _read_by_what_failed(error: Mapping[str, object], definition: Definition) -> References:
    """What the step that failed the run, or the run's output, read when it could not be evaluated."""
    if error.get("code") not in _EVALUATION:
        return References()
    step = definition.steps.get(str(error.get("step_id")))
    if step is not None:
        return step.references
    return definition.output.references if definition.output is not None else References()


def _is_read(step_id: str, references: References) -> bool:
    keys = references.context_keys
    return step_id in references.steps or (references.context and (keys is None or step_id in keys))
