"""Runs as the API shows them: lists, one run, its steps, its events."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from psycopg.types.json import Jsonb

from citadel_common.errors import InvalidInput, NotFound
from citadel_common.stores.postgres import Cursor, one
from citadel_common.telemetry import tracing
from citadel_contracts.runs import ItemCounts, RunError, RunEvent, RunList, RunSummary, StepView
from citadel_orchestration.db import batches
from citadel_orchestration.definition.definition import Definition

_SUMMARY = "run_id::text, workflow_id, kind, status, labels, error, created_at, started_at, finished_at, deadline_at"
_NAMES = [column.strip().removesuffix("::text") for column in _SUMMARY.split(",")]
_TRACED_SUMMARY = f"{_SUMMARY}, trace"
# Items that wait for a slot are found by the index of such waits.
_STEPS = """
SELECT steps.step_id, status, attempt - uncounted, error, items_total, items_done, items_failed, started_at,
    finished_at, coalesce(waits.waiting, 0),
    CASE WHEN status <> 'waiting' THEN NULL
        WHEN items_total IS NOT NULL THEN waits.reason
        WHEN waiting_for IS NOT NULL THEN waiting_for
        WHEN signal IS NOT NULL THEN 'signal:' || signal
        WHEN child_run_id IS NOT NULL THEN 'sub_run'
        WHEN attempt_started_at IS NULL THEN 'retry' ELSE 'time' END,
    CASE WHEN status <> 'waiting' THEN NULL WHEN items_total IS NOT NULL THEN waits.since ELSE waiting_since END
FROM steps LEFT JOIN (
    SELECT step_id, count(*) AS waiting, min(waiting_for) AS reason, min(waiting_since) AS since FROM steps
    WHERE run_id = %(run_id)s AND status = 'waiting' AND waiting_for IS NOT NULL AND item >= 0 GROUP BY step_id
) AS waits ON waits.step_id = steps.step_id
WHERE run_id = %(run_id)s AND item = -1
"""
MOST_EVENTS = 1000
"""Events that one read returns."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Filters of a list of runs; None does not filter.

    Attributes:
        cursor: `next_cursor` of the previous page.
    """

    status: str | None = None
    workflow_id: str | None = None
    kind: str | None = None
    labels: dict[str, str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    cursor: str | None = None
    limit: int = 50


def list_runs(cursor: Cursor, filters: Filters) -> RunList:
    """Return a page of runs, newest first; runs that begin meanwhile do not shift the next page.

    Raises:
        InvalidInput: The cursor is not one that this function returned.
    """
    conditions, values = ["true"], list[Any]()

    def add(condition: str, *value: Any) -> None:
        conditions.append(condition)
        values.extend(value)

    for column in ("status", "workflow_id", "kind"):
        if (wanted := getattr(filters, column)) is not None:
            add(f"{column} = %s", wanted)
    if filters.labels:
        add("labels <> '{}'::jsonb AND labels @> %s", Jsonb(filters.labels))
    if filters.since is not None:
        add("created_at >= %s", filters.since)
    if filters.until is not None:
        add("created_at < %s", filters.until)
    if filters.cursor is not None:
        add("(created_at, run_id) < (%s, %s)", *_position(filters.cursor))
    where = " AND ".join(conditions)
    query = f"SELECT {_TRACED_SUMMARY} FROM runs WHERE {where} ORDER BY created_at DESC, run_id DESC LIMIT %s"  # noqa: S608
    cursor.execute(query, [*values, filters.limit + 1])
    rows = [_summary(row) for row in cursor.fetchall()]
    page = rows[: filters.limit]
    more = len(rows) > filters.limit
    return RunList(runs=page, next_cursor=_cursor(page[-1]) if more else None)


def summary_of(cursor: Cursor, run_id: UUID) -> RunSummary:
    """Return one run without its steps.

    Raises:
        NotFound: There is no such run.
    """
    cursor.execute(f"SELECT {_TRACED_SUMMARY} FROM runs WHERE run_id = %s", [run_id])  # noqa: S608  (column names only)
    row = cursor.fetchone()
    if row is None:
        raise NotFound(f"there is no run {run_id}")
    return _summary(row)


def output_and_parent(cursor: Cursor, run_id: UUID, *, most: int) -> tuple[int | None, bytes | None, str | None]:
    """Return the bytes of a run's output, its JSON if it has `most` bytes or less, and the run it is a sub-run of."""
    cursor.execute(
        "SELECT octet_length(output), CASE WHEN octet_length(output) <= %s THEN output END, parent_run_id::text"
        " FROM runs WHERE run_id = %s",
        [most, run_id],
    )
    size, output, parent = one(cursor)
    return size, output, parent


def steps_view(cursor: Cursor, run: RunSummary, definition: Definition, step_id: str | None = None) -> list[StepView]:
    """Return the steps of a run in order, or the one named `step_id`; the items of a batch are its requests."""
    run_id = UUID(run.run_id)
    if step_id is None:
        cursor.execute(_STEPS + " ORDER BY position", {"run_id": run_id})
    else:
        cursor.execute(_STEPS + " AND steps.step_id = %(step_id)s", {"run_id": run_id, "step_id": step_id})
    found = [_step(row, definition, run.trace_id) for row in cursor.fetchall()]
    if definition.steps.keys() == {batches.STEP} and found:
        return [found[0].model_copy(update={"items": _requests(cursor, run_id) or found[0].items})]
    return found


def _requests(cursor: Cursor, run_id: UUID) -> ItemCounts | None:
    """Return the counts of a batch's requests; None where an older version has not counted them."""
    cursor.execute(
        "SELECT sum(items_total), coalesce(sum(items_total) FILTER (WHERE status IN ('succeeded', 'failed')), 0),"
        " coalesce(sum(CASE status WHEN 'failed' THEN items_total WHEN 'succeeded' THEN items_failed END), 0)"
        " FROM steps WHERE run_id = %s AND step_id = %s AND item >= 0",
        [run_id, batches.STEP],
    )
    total, done, failed = one(cursor)
    return None if total is None else ItemCounts(total=int(total), done=int(done), failed=int(failed))


def _step(row: tuple[Any, ...], definition: Definition, trace_id: str | None) -> StepView:
    step_id, status, attempt, error, total, done, failed, started_at, finished_at, waiting, waiting_for, since = row
    return StepView(
        step_id=step_id,
        type=definition.steps[step_id].type.name,
        status=status,
        attempt=attempt,
        error=_error(error, trace_id),
        items=None if total is None else ItemCounts(total=total, done=done, failed=failed, waiting=waiting),
        waiting_for=waiting_for,
        waiting_since=since,
        started_at=started_at,
        finished_at=finished_at,
    )


def events_after(cursor: Cursor, run_id: UUID, seq: int) -> list[RunEvent]:
    """Return the next events of a run, at most `MOST_EVENTS`."""
    cursor.execute(
        "SELECT seq, at, type, step_id, item, data FROM events WHERE run_id = %s AND seq > %s ORDER BY seq LIMIT %s",
        [run_id, seq, MOST_EVENTS],
    )
    names = list(RunEvent.model_fields)
    return [RunEvent(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def _summary(row: tuple[Any, ...]) -> RunSummary:
    *columns, trace = row
    trace_id = tracing.trace_id_in(trace)
    fields = dict(zip(_NAMES, columns, strict=True))
    return RunSummary(**fields | {"error": _error(fields["error"], trace_id), "trace_id": trace_id})


def _error(error: dict[str, Any] | None, trace_id: str | None) -> RunError | None:
    """Return the error of a run or step, which happened in the trace of its run."""
    return None if error is None else RunError(**{"trace_id": trace_id} | error)


def _cursor(last: RunSummary) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([last.created_at.isoformat(), last.run_id])).decode()


def _position(text: str) -> tuple[datetime, UUID]:
    try:
        at, run_id = orjson.loads(base64.urlsafe_b64decode(text))
        return datetime.fromisoformat(at), UUID(run_id)
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise InvalidInput.at("cursor", "is not the next_cursor of a list of runs") from None
