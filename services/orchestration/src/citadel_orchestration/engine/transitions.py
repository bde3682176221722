"""The engine's transitions: each one short transaction, fenced by the step's attempt.

What a transition makes ready is claimed in the same transaction; the caller runs it after the commit. A
transition that comes late, twice, or for a run that has ended changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import orjson
from psycopg.types.json import Jsonb

from citadel_common.backoff import full_jitter
from citadel_common.errors import (
    CitadelError,
    Conflict,
    DeadlineExceeded,
    NotFound,
    PayloadTooLarge,
    StepTimedOut,
    SubRunFailed,
    WorkerLost,
)
from citadel_orchestration.definition.definition import Definition, Step
from citadel_orchestration.engine.definitions import Definitions
from citadel_orchestration.engine.scope import context_of
from citadel_orchestration.record import runs
from citadel_orchestration.record.database import Database, one
from citadel_orchestration.record.rows import DONE, NO_ITEM, Advance, Claim, NewRun, StepRef
from citadel_orchestration.record.transaction import RunTransaction, run_transaction

MOST_DEATHS = 5
"""Workers that may die with a step before it fails."""
NOTHING = Advance(applied=False)
Finish = Callable[[RunTransaction, Definition], tuple[bytes | None, CitadelError | None]]
"""Gives a run's output at its end, or the error that makes it fail."""


class Transitions:
    """All changes of runs; thread-safe.

    Args:
        database: The record.
        definitions: Parsed definitions by run.
        finish: Evaluates a run's output.
        owner: Name under which steps are leased; None for a caller that executes none.
        lease: Seconds a lease lasts without renewal, and until a step whose message was lost is found.
        max_output_bytes: Bytes in the output of one step.
    """

    def __init__(
        self,
        database: Database,
        definitions: Definitions,
        finish: Finish,
        *,
        owner: str | None,
        lease: float,
        max_output_bytes: int,
    ) -> None:
        self._database = database
        self._definitions = definitions
        self._finish = finish
        self._owner = owner
        self.lease = lease
        self.republish = lease / 3
        self._max_output_bytes = max_output_bytes

    def submit(self, run: NewRun) -> runs.Submitted:
        """Records a run; the same one twice is one.

        Raises:
            Conflict: Its idempotency key was used for something else.
            StoreUnavailable: It may or may not have been recorded.
        """
        with self._database.cursor() as cursor:
            return runs.submit(cursor, run, republish=self.republish)

    def start(self, ref: StepRef) -> Advance:
        """Claims a step that is ready."""
        with self._on(ref.run_id) as tx:
            if tx is None or not tx.run.may_start_steps or tx.claim(ref, of=["ready"]) is None:
                return _untouched(tx)
        return tx.advance

    def succeed(self, ref: StepRef, attempt: int, output: Any) -> Advance:
        """Records a step's output and goes on; one that is too large fails the step."""
        body = orjson.dumps(output, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
        if len(body) > self._max_output_bytes:
            limit = f"the output has {len(body)} bytes; the limit (workflows.max_output_bytes) is"
            return self.fail(ref, attempt, PayloadTooLarge(f"{limit} {self._max_output_bytes}"))
        has_data = isinstance(output, dict) and isinstance(output.get("data"), dict)
        return self._conclude(ref, attempt, "succeeded", output=body, has_data=has_data)

    def skip(self, ref: StepRef, attempt: int) -> Advance:
        """Records that a step's condition does not hold, and goes on."""
        return self._conclude(ref, attempt, "skipped")

    def fail(self, ref: StepRef, attempt: int, error: CitadelError) -> Advance:
        """Retries a step later if its error can pass and attempts are left, else ends it as failed."""
        with self._on(ref.run_id) as tx:
            if tx is None or tx.run.is_finished:
                return _untouched(tx)
            step = self._definition(tx).steps[ref.step_id]
            if error.transient and self._retry(tx, ref, attempt, step, error):
                return tx.advance
            if not tx.finish(ref, attempt, "failed", error=error):
                return _untouched(tx)
            self._after(tx, ref, "failed", error)
        return tx.advance

    def expand(self, ref: StepRef, attempt: int, items: Sequence[Any], *, max_parallel: int) -> Advance:
        """Begins a `for_each`: one row per item, the first ones claimed."""
        if not items:
            return self.succeed(ref, attempt, [])
        with self._on(ref.run_id) as tx:
            if tx is None or not _park(tx, ref, attempt, items_total=len(items)):
                return _untouched(tx)
            insert_items(tx, ref, [orjson.dumps(item) for item in items])
            tx.event("step_expanded", ref.step_id, items=len(items))
            self._start_items(tx, ref.step_id, max_parallel)
        return tx.advance

    def wait(self, ref: StepRef, attempt: int, *, seconds: float | None, signal: str | None) -> Advance:
        """Lets a step wait for a time or a signal; a signal that came already is taken at once."""
        with self._on(ref.run_id) as tx:
            if tx is None or not _park(tx, ref, attempt, seconds=seconds, signal=signal):
                return _untouched(tx)
            payload = _take_signal(tx, signal) if signal is not None else None
            if payload is not None:
                tx.finish(ref, attempt, "succeeded", output=payload, has_data=_has_data(payload))
                self._after(tx, ref, "succeeded", None)
            else:
                tx.event("step_waiting", ref.step_id, ref.item, signal=signal)
        return tx.advance

    def sub_run(self, ref: StepRef, attempt: int, run: NewRun) -> tuple[Advance, runs.Submitted | None]:
        """Starts a sub-run and lets the step wait for it."""
        with self._on(ref.run_id) as tx:
            if tx is None or not _park(tx, ref, attempt, child=run.run_id):
                return _untouched(tx), None
            submitted = runs.submit(tx.cursor, run, republish=self.republish)
            tx.event("step_waiting", ref.step_id, ref.item, run_id=str(run.run_id))
        return tx.advance, submitted

    def sub_run_ended(self, ref: StepRef, attempt: int, run_id: UUID) -> Advance:
        """Ends the step that waited for a sub-run, as that ended."""
        with self._database.cursor() as cursor:
            cursor.execute("SELECT status, output, error FROM runs WHERE run_id = %s", [run_id])
            status, output, error = one(cursor)
            context = context_of(cursor, run_id) if status == "succeeded" else {}
        if status == "succeeded":
            value = None if output is None else orjson.loads(output)
            return self.succeed(ref, attempt, {"output": value, "final_context": context, "run_id": str(run_id)})
        reason = (error or {}).get("message", status)
        return self.fail(ref, attempt, SubRunFailed(f"the sub-run {run_id} {status}: {reason}"))

    def adopt(self, ref: StepRef, attempt: int) -> Claim | None:
        """Moves a running step to this worker; None if its attempt is over."""
        with self._on(ref.run_id) as tx:
            if tx is None:
                return None
            claim = tx.adopt(ref, attempt)
            tx.advance.applied = False
        return claim

    def hand_back(self, ref: StepRef, attempt: int) -> Advance:
        """Gives a step back, for another worker to take; that is no failure."""
        with self._on(ref.run_id) as tx:
            if tx is None:
                return NOTHING
            tx.cursor.execute(
                "UPDATE steps SET status = 'ready', lease_owner = NULL, lease_until = now()"
                " WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s AND status = 'running'",
                [ref.run_id, ref.step_id, ref.item, attempt],
            )
            tx.advance.applied = tx.cursor.rowcount > 0
        return tx.advance

    def take_over(self, ref: StepRef, attempt: int) -> Advance:
        """Claims a step whose worker is gone, or whose message was lost."""
        with self._on(ref.run_id, skip_locked=True) as tx:
            if tx is None or not tx.run.may_start_steps:
                return _untouched(tx)
            tx.cursor.execute(
                "UPDATE steps SET deaths = deaths + (status = 'running')::int WHERE run_id = %s AND step_id = %s"
                " AND item = %s AND attempt = %s AND status IN ('ready', 'running') AND lease_until < now()"
                " RETURNING deaths",
                [ref.run_id, ref.step_id, ref.item, attempt],
            )
            row = tx.cursor.fetchone()
            if row is None:
                return _untouched(tx)
            if row[0] >= MOST_DEATHS:
                tx.finish(ref, attempt, "failed", error=WorkerLost())
                self._after(tx, ref, "failed", WorkerLost())
            else:
                tx.claim(ref, of=["ready", "running"])
        return tx.advance

    def wake(self, ref: StepRef, attempt: int) -> Advance:
        """Ends a wait whose time has come: a retry begins, a duration is over, a signal is missed."""
        with self._on(ref.run_id, skip_locked=True) as tx:
            if tx is None or not tx.run.may_start_steps:
                return _untouched(tx)
            tx.cursor.execute(
                "SELECT signal FROM steps WHERE run_id = %s AND step_id = %s"
                " AND item = %s AND attempt = %s AND status = 'waiting' AND due_at <= now()",
                [ref.run_id, ref.step_id, ref.item, attempt],
            )
            row = tx.cursor.fetchone()
            if row is None:
                return _untouched(tx)
            self._wake(tx, ref, attempt, signal=row[0])
        return tx.advance

    def time_out_step(self, ref: StepRef, attempt: int) -> Advance:
        """Ends an attempt that is past its timeout."""
        return self.fail(ref, attempt, StepTimedOut())

    def cancel(self, run_id: UUID) -> Advance:
        """Ends a run; its queued steps never start.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        with self._on(run_id) as found:
            tx = _active(found, run_id)
            tx.end("cancelled")
        return tx.advance

    def time_out(self, run_id: UUID) -> Advance:
        """Ends a run that is past its deadline."""
        with self._on(run_id, skip_locked=True) as tx:
            if tx is None or tx.run.is_finished or not _is_late(tx):
                return _untouched(tx)
            tx.end("timed_out", error={"code": "run_timed_out", "message": "The run did not finish in time."})
        return tx.advance

    def pause(self, run_id: UUID) -> Advance:
        """Lets no further step start; what runs is finished and recorded.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        with self._on(run_id) as found:
            tx = _active(found, run_id)
            if tx.run.status == "paused":
                return _untouched(tx)
            tx.run.status = "paused"
            tx.event("run_paused")
        return tx.advance

    def resume(self, run_id: UUID) -> Advance:
        """Goes on with a paused run.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        with self._on(run_id) as found:
            tx = _active(found, run_id)
            if tx.run.status != "paused":
                return _untouched(tx)
            tx.run.status = "queued" if _is_untouched(tx) else "running"
            tx.event("run_resumed")
            if tx.run.status == "running" or not _has_no_room(tx):
                self._schedule(tx)
                self._end_if_done(tx)
        return tx.advance

    def signal(self, run_id: UUID, name: str, payload: Any) -> Advance:
        """Delivers a signal; one that nobody waits for yet is kept.

        Raises:
            NotFound: There is no such run.
            Conflict: It has ended.
        """
        body = orjson.dumps(payload)
        with self._on(run_id) as found:
            tx = _active(found, run_id)
            tx.event("signal", name=name)
            tx.cursor.execute(
                "SELECT step_id, item, attempt FROM steps WHERE run_id = %s AND signal = %s AND status = 'waiting'"
                " ORDER BY position, item LIMIT 1",
                [run_id, name],
            )
            row = tx.cursor.fetchone()
            tx.cursor.execute(
                "INSERT INTO signals (run_id, seq, name, payload, consumed) SELECT %s, coalesce(max(seq), 0) + 1,"
                " %s, %s, %s FROM signals WHERE run_id = %s",
                [run_id, name, body, row is not None, run_id],
            )
            if row is not None:
                ref = StepRef(run_id=run_id, step_id=row[0], item=row[1])
                tx.finish(ref, row[2], "succeeded", output=body, has_data=_has_data(body))
                self._after(tx, ref, "succeeded", None)
        return tx.advance

    def retry(self, run_id: UUID, *, deadline: float | None) -> Advance:
        """Runs a run that ended badly again from where it failed; what succeeded is not repeated.

        Raises:
            NotFound: There is no such run.
            Conflict: It has not ended, or has succeeded.
        """
        with self._on(run_id) as tx:
            if tx is None:
                raise NotFound(f"there is no run {run_id}")
            if not tx.run.is_finished or tx.run.status == "succeeded":
                raise Conflict(
                    f"the run is {tx.run.status}; only one that failed, timed out or was cancelled is retried"
                )
            if _has_no_room(tx):
                raise Conflict("as many other runs of its concurrency key are active as may be; retry it later")
            _reset(tx, deadline)
            tx.event("run_retried")
            self._schedule(tx)
            self._end_if_done(tx)
            self._end_if_done(tx)
        return tx.advance

    def release(self, key: str) -> list[Advance]:
        """Starts runs that waited for others of their concurrency key to end."""
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT run_id, concurrency_limit FROM runs WHERE concurrency_key = %s AND status = 'queued'"
                " AND NOT EXISTS (SELECT 1 FROM steps WHERE steps.run_id = runs.run_id AND status <> 'pending')"
                " ORDER BY created_at LIMIT 100",
                [key],
            )
            waiting = cursor.fetchall()
        return [self._release(key, run_id, limit) for run_id, limit in waiting]

    def _release(self, key: str, run_id: UUID, limit: int) -> Advance:
        with self._on(run_id) as tx:
            if tx is None or tx.run.status != "queued" or runs.room_of_key(tx.cursor, key, limit) <= 0:
                return _untouched(tx)
            self._schedule(tx)
        return tx.advance

    @contextmanager
    def _on(self, run_id: UUID, *, skip_locked: bool = False) -> Iterator[RunTransaction | None]:
        with run_transaction(
            self._database, run_id, owner=self._owner, lease=self.lease, skip_locked=skip_locked
        ) as tx:
            yield tx

    def _definition(self, tx: RunTransaction) -> Definition:
        return self._definitions.get(tx.run.run_id, tx.cursor)

    def _conclude(
        self, ref: StepRef, attempt: int, status: str, *, output: bytes | None = None, has_data: bool = False
    ) -> Advance:
        with self._on(ref.run_id) as tx:
            if tx is None or tx.run.is_finished:
                return _untouched(tx)
            if not tx.finish(ref, attempt, status, output=output, has_data=has_data):
                return _untouched(tx)
            self._after(tx, ref, status, None)
        return tx.advance

    def _retry(self, tx: RunTransaction, ref: StepRef, attempt: int, step: Step, error: CitadelError) -> bool:
        """Puts the step to sleep until its next attempt, if it has one left."""
        policy = step.retry
        tx.cursor.execute(
            "SELECT tries FROM steps WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s"
            " AND status IN ('running', 'waiting')",
            [ref.run_id, ref.step_id, ref.item, attempt],
        )
        row = tx.cursor.fetchone()
        if row is None or row[0] + 1 >= policy.max_attempts:
            return False
        delay = full_jitter(row[0], base=policy.delay, factor=policy.factor, cap=policy.max_delay)
        told = {"code": error.code, "message": error.message}
        tx.cursor.execute(
            "UPDATE steps SET status = 'waiting', tries = tries + 1, attempt = attempt + 1, error = %s,"
            " lease_owner = NULL, lease_until = NULL, due_at = now() + make_interval(secs => %s)"
            " WHERE run_id = %s AND step_id = %s AND item = %s",
            [Jsonb(told), delay, ref.run_id, ref.step_id, ref.item],
        )
        tx.event("step_retrying", ref.step_id, ref.item, error=told, delay_s=round(delay, 3), tries=row[0] + 1)
        return True

    def _wake(self, tx: RunTransaction, ref: StepRef, attempt: int, *, signal: str | None) -> None:
        step = self._definition(tx).steps[ref.step_id]
        if step.type.name != "wait":
            tx.claim(ref, of=["waiting"])
        elif signal is None:
            tx.finish(ref, attempt, "succeeded", output=b"{}")
            self._after(tx, ref, "succeeded", None)
        else:
            error = DeadlineExceeded(f"the signal {signal!r} did not come in time")
            tx.finish(ref, attempt, "failed", error=error)
            self._after(tx, ref, "failed", error)

    def _after(self, tx: RunTransaction, ref: StepRef, status: str, error: CitadelError | None) -> None:
        """What follows the end of a step or of an item."""
        step = self._definition(tx).steps[ref.step_id]
        if ref.item != NO_ITEM:
            self._after_item(tx, step, status, error)
            return
        tx.run.unfinished -= 1
        if status == "failed" and step.on_error == "fail":
            tx.end("failed", error=_error_of(step, error))
            return
        if tx.run.may_start_steps:
            self._start_dependents(tx, step)
            self._end_if_done(tx)

    def _start_dependents(self, tx: RunTransaction, step: Step) -> None:
        steps = self._definition(tx).steps
        if not step.dependents:
            return
        others = {name for dependent in step.dependents for name in steps[dependent].depends_on} - {step.step_id}
        known = {step.step_id: "succeeded"} | (tx.statuses(others) if others else {})
        for dependent in step.dependents:
            if all(known[name] in DONE for name in steps[dependent].depends_on):
                tx.claim(StepRef(run_id=tx.run.run_id, step_id=dependent), of=["pending"])

    def _after_item(self, tx: RunTransaction, step: Step, status: str, error: CitadelError | None) -> None:
        """Counts it on the step, and starts the next item or ends the step."""
        parent = StepRef(run_id=tx.run.run_id, step_id=step.step_id)
        tx.cursor.execute(
            "UPDATE steps SET items_done = items_done + 1, items_failed = items_failed + %s"
            " WHERE run_id = %s AND step_id = %s AND item = -1 AND status = 'waiting'"
            " RETURNING attempt, items_total, items_done",
            [int(status == "failed"), parent.run_id, parent.step_id],
        )
        row = tx.cursor.fetchone()
        if row is None:
            return
        attempt, total, done = row
        if status == "failed" and step.on_error == "fail":
            _cancel_items(tx, step.step_id)
            tx.finish(parent, attempt, "failed", error=error)
            self._after(tx, parent, "failed", error)
        elif done == total:
            tx.finish(parent, attempt, "succeeded")
            self._after(tx, parent, "succeeded", None)
        elif tx.run.may_start_steps:
            self._start_items(tx, step.step_id, 1)

    def _start_items(self, tx: RunTransaction, step_id: str, count: int) -> None:
        tx.cursor.execute(
            "SELECT item FROM steps WHERE run_id = %s AND step_id = %s AND status = 'pending' AND item >= 0"
            " ORDER BY item LIMIT %s",
            [tx.run.run_id, step_id, count],
        )
        for (item,) in tx.cursor.fetchall():
            tx.claim(StepRef(run_id=tx.run.run_id, step_id=step_id, item=item), of=["pending"])

    def _schedule(self, tx: RunTransaction) -> None:
        """Starts all that may start: after a pause, a retry, or a wait for the concurrency key."""
        definition = self._definition(tx)
        known = tx.statuses(definition.steps)
        for step in definition.steps.values():
            if known[step.step_id] == "pending" and all(known[name] in DONE for name in step.depends_on):
                tx.claim(StepRef(run_id=tx.run.run_id, step_id=step.step_id), of=["pending"])
            elif known[step.step_id] == "waiting" and step.for_each is not None:
                self._start_items(tx, step.step_id, step.for_each[1] - _running_items(tx, step.step_id))

    def _end_if_done(self, tx: RunTransaction) -> None:
        if tx.run.unfinished > 0 or tx.run.is_finished:
            return
        output, error = self._finish(tx, self._definition(tx))
        if error is None:
            tx.end("succeeded", output=output)
        else:
            tx.end("failed", error={"code": error.code, "message": error.message})


def insert_items(tx: RunTransaction, ref: StepRef, bodies: Sequence[bytes]) -> None:
    """Rows and payloads of the items of a `for_each`."""
    tx.cursor.execute(
        "INSERT INTO steps (run_id, step_id, item, position, status) SELECT %s, %s, number - 1, position, 'pending'"
        " FROM generate_series(1, %s) AS number,"
        " (SELECT position FROM steps WHERE run_id = %s AND step_id = %s AND item = -1) AS step",
        [ref.run_id, ref.step_id, len(bodies), ref.run_id, ref.step_id],
    )
    tx.cursor.execute(
        "INSERT INTO payloads (run_id, step_id, item, kind, body) SELECT %s, %s, number - 1, 'input', body"
        " FROM unnest(%s::bytea[]) WITH ORDINALITY AS new (body, number)",
        [ref.run_id, ref.step_id, list(bodies)],
    )


def _untouched(tx: RunTransaction | None) -> Advance:
    if tx is not None:
        tx.advance = NOTHING
    return NOTHING


def _active(found: RunTransaction | None, run_id: UUID) -> RunTransaction:
    if found is None:
        raise NotFound(f"there is no run {run_id}")
    if found.run.is_finished:
        raise Conflict(f"the run is {found.run.status}")
    return found


def _park(
    tx: RunTransaction,
    ref: StepRef,
    attempt: int,
    *,
    seconds: float | None = None,
    signal: str | None = None,
    child: UUID | None = None,
    items_total: int | None = None,
) -> bool:
    """Lets a running step wait for something else than its own execution."""
    if tx.run.is_finished:
        return False
    tx.cursor.execute(
        "UPDATE steps SET status = 'waiting', lease_owner = NULL, lease_until = NULL, signal = %s,"
        " child_run_id = %s, items_total = %s, due_at = now() + make_interval(secs => %s)"
        " WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s AND status = 'running'",
        [signal, child, items_total, seconds, ref.run_id, ref.step_id, ref.item, attempt],
    )
    return tx.cursor.rowcount > 0


def _take_signal(tx: RunTransaction, name: str) -> bytes | None:
    tx.cursor.execute(
        "UPDATE signals SET consumed = true WHERE (run_id, seq) = (SELECT run_id, seq FROM signals"
        " WHERE run_id = %s AND name = %s AND NOT consumed ORDER BY seq LIMIT 1) RETURNING payload",
        [tx.run.run_id, name],
    )
    row = tx.cursor.fetchone()
    return None if row is None else bytes(row[0])


def _has_data(body: bytes) -> bool:
    value = orjson.loads(body)
    return isinstance(value, dict) and isinstance(value.get("data"), dict)


def _cancel_items(tx: RunTransaction, step_id: str) -> None:
    tx.cursor.execute(
        "UPDATE steps SET status = 'cancelled', attempt = attempt + 1, finished_at = now(), lease_until = NULL,"
        " lease_owner = NULL, due_at = NULL WHERE run_id = %s AND step_id = %s AND item >= 0 AND status <> ALL(%s)",
        [tx.run.run_id, step_id, list(DONE)],
    )


def _running_items(tx: RunTransaction, step_id: str) -> int:
    tx.cursor.execute(
        "SELECT count(*) FROM steps WHERE run_id = %s AND step_id = %s AND item >= 0"
        " AND status IN ('ready', 'running', 'waiting')",
        [tx.run.run_id, step_id],
    )
    return int(one(tx.cursor)[0])


def _reset(tx: RunTransaction, deadline: float | None) -> None:
    """What did not succeed begins anew; the items that did, stay."""
    run_id = tx.run.run_id
    tx.cursor.execute(
        "UPDATE steps SET attempt = attempt + 1, tries = 0, deaths = 0, error = NULL, finished_at = NULL,"
        " child_run_id = NULL, signal = NULL, items_failed = 0,"
        " status = CASE WHEN item = -1 AND items_total IS NOT NULL THEN 'waiting' ELSE 'pending' END"
        " WHERE run_id = %s AND status IN ('failed', 'cancelled') AND EXISTS (SELECT 1 FROM steps AS whole"
        " WHERE whole.run_id = steps.run_id AND whole.step_id = steps.step_id AND whole.item = -1"
        " AND whole.status IN ('failed', 'cancelled'))",
        [run_id],
    )
    tx.cursor.execute(
        "UPDATE steps SET items_done = (SELECT count(*) FROM steps AS items WHERE items.run_id = steps.run_id"
        " AND items.step_id = steps.step_id AND items.item >= 0 AND items.status IN ('succeeded', 'skipped'))"
        " WHERE run_id = %s AND item = -1 AND status = 'waiting' AND items_total IS NOT NULL",
        [run_id],
    )
    tx.cursor.execute(
        "SELECT count(*) FROM steps WHERE run_id = %s AND item = -1 AND status <> ALL(%s)", [run_id, list(DONE)]
    )
    tx.run.unfinished = int(one(tx.cursor)[0])
    tx.run.status, tx.run.error, tx.run.output = "running", None, None
    tx.cursor.execute(
        "UPDATE runs SET finished_at = NULL WHERE run_id = %s"
        " RETURNING CASE WHEN %s::float8 IS NULL THEN NULL ELSE now() + make_interval(secs => %s) END",
        [run_id, deadline, deadline],
    )
    [tx.run.deadline_at] = one(tx.cursor)


def _is_late(tx: RunTransaction) -> bool:
    tx.cursor.execute("SELECT deadline_at < now() FROM runs WHERE run_id = %s", [tx.run.run_id])
    return bool(one(tx.cursor)[0])


def _is_untouched(tx: RunTransaction) -> bool:
    """Whether none of its steps was ever ready: it was held back for the limit of its concurrency key."""
    tx.cursor.execute(
        "SELECT NOT EXISTS (SELECT 1 FROM steps WHERE run_id = %s AND status <> 'pending')", [tx.run.run_id]
    )
    return bool(one(tx.cursor)[0])


def _has_no_room(tx: RunTransaction) -> bool:
    key, limit = tx.run.concurrency_key, tx.run.concurrency_limit
    return key is not None and limit is not None and runs.room_of_key(tx.cursor, key, limit) <= 0


def _error_of(step: Step, error: CitadelError | None) -> dict[str, Any]:
    found = error or CitadelError()
    return {"code": found.code, "message": found.message, "step_id": step.step_id}
