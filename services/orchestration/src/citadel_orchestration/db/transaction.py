"""A transaction on one run: its row is locked, its changes and events are written together."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from citadel_common.deadline import Deadline
from citadel_common.errors import CitadelError
from citadel_common.stores.postgres import Cursor
from citadel_orchestration.db.models import (
    FINAL_STEP_STATES,
    NO_ITEM,
    Effects,
    EndedAttempt,
    EndedRun,
    RunRow,
    StepClaim,
    StepRef,
    Wait,
)
from citadel_orchestration.db.payloads import states_of
from citadel_orchestration.definition.definition import Definition
from citadel_orchestration.definition.sizes import DEFAULT_RUN_LIMITS, RunLimits

MAX_EVENTS = 100_000
"""Events of one run, unless the settings say otherwise."""
NO_COUNTS: Mapping[str, int] = {}
_FIELDS = [name for name in RunRow.__dataclass_fields__ if name != "output"]
_COLUMNS = ", ".join(_FIELDS)
_LOCK = f"SELECT {_COLUMNS} FROM runs WHERE run_id = %s FOR UPDATE"  # noqa: S608  (column names only)
_SAVE = """
WITH new_events AS (
    INSERT INTO events (run_id, seq, type, step_id, item, data)
    SELECT %(run_id)s, seq, type, step_id, nullif(item, -1), data
    FROM unnest(%(seqs)s::bigint[], %(types)s::text[], %(step_ids)s::text[], %(items)s::int[], %(data)s::jsonb[])
        AS new (seq, type, step_id, item, data)
)
UPDATE runs SET status = %(status)s, unfinished = %(unfinished)s, last_event = %(last_event)s,
    output = CASE WHEN %(finished)s THEN coalesce(%(output)s, output) END,
    error = %(error)s, deadline_at = %(deadline_at)s,
    held_since = CASE WHEN %(status)s <> 'running' THEN held_since END,
    started_at = CASE WHEN %(status)s = 'queued' THEN started_at ELSE coalesce(started_at, now()) END,
    finished_at = CASE WHEN %(finished)s THEN coalesce(finished_at, now()) END
WHERE run_id = %(run_id)s
RETURNING finished_at
"""
_RUN_LEFT = "extract(epoch FROM %(run_deadline)s::timestamptz - clock_timestamp())::float8"
# The attempt grows with every claim. All later statements on the step name it, so that a worker whose lease ran out
# cannot end the attempt of the worker that took the step over.
_CLAIM = f"""
UPDATE steps SET status = 'running', attempt = attempt + 1, lease_owner = %(owner)s, due_at = NULL,
    lease_until = now() + make_interval(secs => %(lease)s), started_at = coalesce(started_at, now()),
    attempt_started_at = now(), waiting_for = NULL, waiting_since = NULL, turn = NULL
WHERE run_id = %(run_id)s AND step_id = %(step_id)s AND item = %(item)s AND status = ANY(%(from)s)
RETURNING attempt, tries, coalesce((error ->> 'calls')::int, 0), {_RUN_LEFT}, attempt - uncounted
"""  # noqa: S608  (constants only)
_READY = """
UPDATE steps SET status = 'ready', due_at = NULL, lease_until = now() + make_interval(secs => %(lease)s)
WHERE run_id = %(run_id)s AND step_id = %(step_id)s AND item = %(item)s AND status = ANY(%(from)s)
"""
# Answers of the embeddings workers are delivered at least once: the first token of an attempt wins.
_ADOPT = f"""
UPDATE steps SET lease_owner = %(owner)s, lease_until = now() + make_interval(secs => %(lease)s),
    vectors_taken = %(taken)s
WHERE run_id = %(run_id)s AND step_id = %(step_id)s AND item = %(item)s AND attempt = %(attempt)s
    AND status = 'running' AND (vectors_taken = %(taken)s
        OR split_part(coalesce(vectors_taken, ''), '/', 1) <> %(attempt)s::text)
RETURNING attempt, tries, coalesce((error ->> 'calls')::int, 0), {_RUN_LEFT}
"""  # noqa: S608  (constants only)
_TAKE_LEASE = f"""
UPDATE steps SET lease_owner = %(owner)s, lease_until = now() + make_interval(secs => %(lease)s)
WHERE run_id = %(run_id)s AND step_id = %(step_id)s AND item = %(item)s AND attempt = %(attempt)s
    AND status = 'running' AND lease_until < now()
RETURNING attempt, tries, coalesce((error ->> 'calls')::int, 0), {_RUN_LEFT},
    extract(epoch FROM now() - coalesce(attempt_started_at, now()))::float8
"""  # noqa: S608  (constants only)
_FINISH = """
UPDATE steps SET status = %(status)s, error = %(error)s, has_data = %(has_data)s, finished_at = now(),
    due_at = NULL, lease_until = NULL, lease_owner = NULL
WHERE run_id = %(run_id)s AND step_id = %(step_id)s AND item = %(item)s AND attempt = %(attempt)s
    AND status IN ('running', 'waiting')
RETURNING run_id, step_id, item, coalesce(attempt_started_at, started_at, now()) AS began, now() AS ended,
    attempt_before
"""
_FINISH_WITH_OUTPUT = f"""
WITH done AS ({_FINISH}), stored AS (
    INSERT INTO payloads (run_id, step_id, item, kind, body)
    SELECT run_id, step_id, item, 'output', %(output)s FROM done
    ON CONFLICT (run_id, step_id, item, kind) DO UPDATE SET body = excluded.body
)
SELECT run_id, step_id, item, began, ended, attempt_before FROM done
"""  # noqa: S608  (constants only)
# The attempt grows here too: an execution that is still under way is fenced off.
_CANCEL = """
UPDATE steps SET status = 'cancelled', attempt = attempt + 1, uncounted = uncounted + 1, finished_at = now(),
    due_at = NULL, lease_until = NULL, lease_owner = NULL
WHERE run_id = %s AND status <> ALL(%s) {}
RETURNING step_id, item, attempt - 1, attempt_started_at, now(), attempt_before
"""


class RunTransaction:
    """A locked run.

    Attributes:
        cursor: Cursor of the transaction.
        run: The run; `save` writes its mutable columns.
        effects: What the caller has to do after the commit.
        limits: Limits of what the run makes and reads.
        began: When the transaction was about to begin (monotonic): leases that it gives count from there.
    """

    def __init__(
        self,
        cursor: Cursor,
        run: RunRow,
        *,
        owner: str | None,
        lease: float,
        definition_of: Callable[[UUID, Cursor], Definition],
        limits: RunLimits = DEFAULT_RUN_LIMITS,
        max_events: int = MAX_EVENTS,
    ) -> None:
        self.cursor = cursor
        self.run = run
        self.limits = limits
        self.effects = Effects(lane=run.lane)
        self.began = time.monotonic()
        self._owner = owner
        self._lease = lease
        self._definition_of = definition_of
        self._max_events = max_events
        self._events: list[tuple[str, str | None, int, dict[str, Any]]] = []

    @cached_property
    def definition(self) -> Definition:
        """The run's definition, read where this process does not know it."""
        return self._definition_of(self.run.run_id, self.cursor)

    def event(self, type: str, step_id: str | None = None, item: int = NO_ITEM, **data: Any) -> None:  # noqa: A002
        """Append an event, without data that are None; numbers have no gaps and follow the order of the commits.

        A run with too many events gets `events_limited`, and then only those of the run as a whole.
        """
        room = self._max_events - self.run.last_event - len(self._events)
        if room <= 1 and step_id is not None:
            if room == 1:
                self._events.append(("events_limited", None, NO_ITEM, {"limit": self._max_events}))
            return
        known = {name: value for name, value in data.items() if value is not None}
        self._events.append((type, step_id, item, known))

    def claim(self, ref: StepRef, *, of: Iterable[str], wait: Wait | None = None) -> StepClaim | None:
        """Claim a step in one of the states `of`; without an owner, make it ready for any worker.

        Args:
            ref: The step.
            of: The states.
            wait: The wait that ends, for the event.

        Returns:
            The claim; None if the step is in another state, or there is no owner.
        """
        place = {"run_id": ref.run_id, "step_id": ref.step_id, "item": ref.item}
        if self._owner is None:
            self.cursor.execute(_READY, place | {"lease": self._lease, "from": list(of)})
            self.effects.ready += [ref] * self.cursor.rowcount
            return None
        mine = {"owner": self._owner, "lease": self._lease, "run_deadline": self.run.deadline_at}
        self.cursor.execute(_CLAIM, place | mine | {"from": list(of)})
        row = self.cursor.fetchone()
        if row is None:
            return None
        self.run.status = "running"
        *columns, number = row
        claim = self._claimed(ref, *columns)
        if wait is None:
            self.event("step_started", ref.step_id, ref.item, attempt=number)
        else:
            waited = round(wait.seconds, 3)
            self.event("step_admitted", ref.step_id, ref.item, waiting_for=wait.waiting_for, waited_s=waited)
        self.effects.claims.append(claim)
        return claim

    def adopt(self, ref: StepRef, attempt: int, token: str) -> StepClaim | None:
        """Take over the lease of a running step; None if its attempt is over, or was adopted with another token."""
        place = {"run_id": ref.run_id, "step_id": ref.step_id, "item": ref.item, "attempt": attempt}
        mine = {"owner": self._owner, "lease": self._lease, "run_deadline": self.run.deadline_at}
        self.cursor.execute(_ADOPT, place | mine | {"taken": f"{attempt}/{token}"})
        row = self.cursor.fetchone()
        return None if row is None else self._claimed(ref, *row)

    def take_lease(self, ref: StepRef, attempt: int) -> tuple[StepClaim, float] | None:
        """Take over the expired lease of a running step, whose attempt goes on.

        Returns:
            The claim, and the seconds since the attempt began; None if the lease was renewed, or the attempt is over.
        """
        place = {"run_id": ref.run_id, "step_id": ref.step_id, "item": ref.item, "attempt": attempt}
        mine = {"owner": self._owner, "lease": self._lease, "run_deadline": self.run.deadline_at}
        self.cursor.execute(_TAKE_LEASE, place | mine)
        row = self.cursor.fetchone()
        return None if row is None else (self._claimed(ref, *row[:4]), row[4])

    def _claimed(self, ref: StepRef, attempt: int, tries: int, calls: int, run_left: float | None) -> StepClaim:
        run = self.run
        return StepClaim(
            ref=ref,
            attempt=attempt,
            tries=tries,
            calls=calls,
            workflow_id=run.workflow_id,
            kind=run.kind,
            lane=run.lane,
            depth=run.depth,
            run_deadline=None if run_left is None else Deadline.after(run_left),
            trace=run.trace,
            leased_at=self.began,
        )

    def finish(
        self,
        ref: StepRef,
        attempt: int,
        status: str,
        *,
        output: bytes | None = None,
        has_data: bool = False,
        error: CitadelError | None = None,
        counts: Mapping[str, int] = NO_COUNTS,
    ) -> bool:
        """End a step; `counts` go into the event. Return False if its attempt is over already."""
        place = {"run_id": ref.run_id, "step_id": ref.step_id, "item": ref.item, "attempt": attempt}
        failure = None if error is None else error.data.model_dump()
        outcome = {"status": status, "error": failure and Jsonb(failure), "has_data": has_data, "output": output}
        self.cursor.execute(_FINISH if output is None else _FINISH_WITH_OUTPUT, place | outcome)
        row = self.cursor.fetchone()
        if row is None:
            return False
        self.attempt_ended(ref, attempt, status, row[3:], error=None if error is None else error.code)
        self.event(f"step_{status}", ref.step_id, ref.item, error=failure, **counts)
        return True

    def attempt_ended(
        self, ref: StepRef, number: int, outcome: str, row: tuple[Any, ...], *, error: str | None = None
    ) -> None:
        """Add an attempt to the effects; `row` is its begin, its end and the number of the attempt before it."""
        began, ended, before = row
        if began is None:
            return
        self.effects.attempts.append(
            EndedAttempt(
                ref=ref,
                type=self.definition.steps[ref.step_id].type.name,
                number=number,
                before=before,
                outcome=outcome,
                error=error,
                began=began,
                ended=ended,
            )
        )

    def cancel_steps(self) -> None:
        """Cancel all steps and items that have not ended."""
        self._cancel("")

    def cancel_items(self, step_id: str) -> None:
        """Cancel the items of a `for_each` that have not ended."""
        self._cancel("AND step_id = %s AND item >= 0", step_id)

    def _cancel(self, where: str, *values: Any) -> None:
        self.cursor.execute(_CANCEL.format(where), [self.run.run_id, list(FINAL_STEP_STATES), *values])
        for step_id, item, attempt, *row in self.cursor.fetchall():
            ref = StepRef(run_id=self.run.run_id, step_id=step_id, item=item)
            self.attempt_ended(ref, attempt, "cancelled", tuple(row))

    def statuses(self, step_ids: Iterable[str]) -> dict[str, str]:
        """Return the states of some steps."""
        return {step_id: status for step_id, status, _ in states_of(self.cursor, self.run.run_id, list(step_ids))}

    def end(self, status: str, *, error: dict[str, Any] | None = None, output: bytes | None = None) -> None:
        """End the run, and cancel its steps that have not ended."""
        self.cancel_steps()
        self.run.status, self.run.error, self.run.output = status, error, output
        self.event(f"run_{status}", error=error)
        self.effects.claims.clear()
        self.effects.ready.clear()
        self.effects.ended = EndedRun(
            run_id=self.run.run_id,
            status=status,
            parent=self.run.parent,
            reply_to=self.run.reply_to,
            concurrency_key=self.run.concurrency_key,
            kind=self.run.kind,
            workflow_id=self.run.workflow_id,
            error=None if error is None else error.get("code"),
            created_at=self.run.created_at,
            trace=self.run.trace,
        )

    def discard(self) -> Effects:
        """Drop the effects, so that nothing is saved; return the effects of a transition that changes nothing."""
        self.effects = Effects(applied=False)
        return self.effects

    def save(self) -> None:
        """Write the run's row and its events."""
        run = self.run
        first = run.last_event + 1
        run.last_event += len(self._events)
        self.cursor.execute(
            _SAVE,
            {
                "run_id": run.run_id,
                "status": run.status,
                "unfinished": run.unfinished,
                "last_event": run.last_event,
                "output": run.output,
                "error": None if run.error is None else Jsonb(run.error),
                "deadline_at": run.deadline_at,
                "finished": run.is_finished,
                "seqs": list(range(first, run.last_event + 1)),
                "types": [event[0] for event in self._events],
                "step_ids": [event[1] for event in self._events],
                "items": [event[2] for event in self._events],
                "data": [Jsonb(event[3]) for event in self._events],
            },
        )
        row = self.cursor.fetchone()
        if self.effects.ended is not None and row is not None:
            self.effects.ended = replace(self.effects.ended, finished_at=row[0])


def lock_run(cursor: Cursor, run_id: UUID, *, skip_locked: bool = False) -> RunRow | None:
    """Lock a run until the cursor's transaction ends; None where there is none, or it is to be skipped.

    Lock order: a transaction that locks a run and its sub-run locks the sub-run last; all its other locks come later.
    """
    cursor.execute(_LOCK + (" SKIP LOCKED" if skip_locked else ""), [run_id])
    row = cursor.fetchone()
    return None if row is None else RunRow(**dict(zip(_FIELDS, row, strict=True)))
