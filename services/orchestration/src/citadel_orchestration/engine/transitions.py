"""The engine's transitions: each one short transaction, fenced by the step's attempt.

What a transition makes ready is claimed in the same transaction; the caller runs it after the commit. A
transition that comes late, twice, or for a run that has ended changes nothing.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from psycopg.types.json import Jsonb

from citadel_common.backoff import full_jitter
from citadel_common.errors import (
    CitadelError,
    DeadlineExceeded,
    PayloadTooLarge,
    StepTimedOut,
    SubRunFailed,
    WorkerLost,
)
from citadel_common.stores.postgres import one
from citadel_orchestration.db import batches, runs, steps
from citadel_orchestration.db.models import NO_ITEM, Effects, EndedRun, NewRun, StepClaim, StepRef
from citadel_orchestration.db.step_succeeded import step_succeeded
from citadel_orchestration.db.transaction import RunTransaction, lock_run
from citadel_orchestration.definition.definition import Step
from citadel_orchestration.engine import traces
from citadel_orchestration.engine.following import NOTHING, has_data, untouched
from citadel_orchestration.engine.scope import context_of
from citadel_orchestration.engine.steering import Steering
from citadel_orchestration.engine.sub_runs import timeout_of

MOST_DEATHS = 5
"""Workers that may die with a step before it fails."""


class Transitions(Steering):
    """All changes of runs; thread-safe."""

    def submit(self, run: NewRun) -> runs.Submitted:
        """Records a run; the same one twice is one.

        Raises:
            Conflict: Its idempotency key was used for something else.
            StoreUnavailable: It may or may not have been recorded.
        """
        with self._database.cursor() as cursor:
            return runs.submit(cursor, run, republish=self.republish)

    def start(self, ref: StepRef) -> Effects:
        """Claims a step that is ready."""
        with self._on(ref.run_id) as tx:
            if tx is None or not tx.run.may_start_steps or tx.claim(ref, of=["ready"]) is None:
                return untouched(tx)
        return tx.effects

    def succeed(self, ref: StepRef, attempt: int, output: Any) -> Effects:
        """Records a step's output and goes on; one that is too large fails the step."""
        body = orjson.dumps(output, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
        if len(body) > self._max_output_bytes:
            limit = f"the output has {len(body)} bytes; the limit (workflows.max_output_bytes) is"
            return self.fail(ref, attempt, PayloadTooLarge(f"{limit} {self._max_output_bytes}"))
        effects = self._straight_on(ref, attempt, body, output)
        return effects or self._conclude(ref, attempt, "succeeded", output=output, body=body)

    def skip(self, ref: StepRef, attempt: int) -> Effects:
        """Records that a step's condition does not hold, and goes on."""
        return self._conclude(ref, attempt, "skipped")

    def fail(self, ref: StepRef, attempt: int, error: CitadelError) -> Effects:
        """Retries a step later if its error can pass and attempts are left, else ends it as failed."""
        with self._on(ref.run_id) as tx:
            if tx is None or tx.run.is_finished:
                return untouched(tx)
            if not self._fail(tx, ref, attempt, error):
                return untouched(tx)
        return tx.effects

    def expand(self, ref: StepRef, attempt: int, items: Sequence[Any], *, max_parallel: int) -> Effects:
        """Begins a `for_each`: one row per item, the first ones claimed."""
        if not items:
            return self.succeed(ref, attempt, [])
        with self._on(ref.run_id) as tx:
            if tx is None or not steps.park(tx, ref, attempt, items_total=len(items)):
                return untouched(tx)
            steps.insert_items(tx, ref, [orjson.dumps(item) for item in items])
            tx.event("step_expanded", ref.step_id, items=len(items))
            self._start_items(tx, ref.step_id, max_parallel)
        return tx.effects

    def wait(self, ref: StepRef, attempt: int, *, seconds: float | None, signal: str | None) -> Effects:
        """Lets a step wait for a time or a signal; a signal that came already is taken at once."""
        with self._on(ref.run_id) as tx:
            if tx is None or not steps.park(tx, ref, attempt, seconds=seconds, signal=signal):
                return untouched(tx)
            payload = steps.take_signal(tx, signal) if signal is not None else None
            if payload is not None:
                tx.finish(ref, attempt, "succeeded", output=payload, has_data=has_data(orjson.loads(payload)))
                self._after(tx, ref, "succeeded", None)
            else:
                tx.event("step_waiting", ref.step_id, ref.item, signal=signal)
        return tx.effects

    def sub_run(self, ref: StepRef, attempt: int, run: NewRun) -> tuple[Effects, Effects]:
        """Starts a sub-run and lets the step wait for it; one that the step had before its retry goes on instead.

        Returns:
            The step's effects and the sub-run's.

        Raises:
            Conflict: The concurrency key of a sub-run that is to go on has no room.
        """
        with self._on(ref.run_id) as tx:
            if tx is None:
                return NOTHING, NOTHING
            child = self._sub_run_of(tx, ref, attempt)
            run_id = run.run_id if child is None else child.run.run_id
            definition = self._definition(tx)
            timeout = timeout_of(definition, definition.steps[ref.step_id])
            if not steps.park(tx, ref, attempt, child=run_id, seconds=timeout):
                return untouched(tx), NOTHING
            begun = self._submit_sub_run(tx, run) if child is None else self._go_on(child, attempt)
            tx.event("step_waiting", ref.step_id, ref.item, run_id=str(run_id))
        return tx.effects, begun

    def _submit_sub_run(self, tx: RunTransaction, run: NewRun) -> Effects:
        submitted = runs.submit(tx.cursor, run, republish=self.republish)
        return Effects(ready=[StepRef(run_id=run.run_id, step_id=step_id) for step_id in submitted.ready])

    def _sub_run_of(self, tx: RunTransaction, ref: StepRef, attempt: int) -> RunTransaction | None:
        """The sub-run that the step had when its run ended, under lock."""
        tx.cursor.execute(
            "SELECT child_run_id FROM steps WHERE run_id = %s AND step_id = %s AND item = %s AND attempt = %s"
            " AND status = 'running' AND child_run_id IS NOT NULL",
            [ref.run_id, ref.step_id, ref.item, attempt],
        )
        row = tx.cursor.fetchone()
        return None if row is None else lock_run(tx.cursor, row[0], owner=self._owner, lease=self.lease)

    def _go_on(self, child: RunTransaction, attempt: int) -> Effects:
        """Lets a sub-run belong to a later attempt of its step, and runs what it left undone."""
        run = child.run
        child.cursor.execute("UPDATE runs SET parent_attempt = %s WHERE run_id = %s", [attempt, run.run_id])
        run.parent_attempt = attempt
        if run.status == "succeeded":
            ended = EndedRun(
                run_id=run.run_id, status=run.status, parent=run.parent, reply_to=None, concurrency_key=None
            )
            return Effects(ended=ended)
        if run.is_finished:
            self._again(child, self._definition(child).deadline)
            child.save()
            return child.effects
        return NOTHING

    def sub_run_ended(self, ref: StepRef, attempt: int, run_id: UUID) -> Effects:
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

    def adopt(self, ref: StepRef, attempt: int, *, token: str) -> StepClaim | None:
        """Moves a running step, whose vectors have come, to this worker, once per attempt.

        Args:
            ref: The step.
            attempt: Its attempt.
            token: Says which answer it goes on with: to ask again with the same one changes nothing.

        Returns:
            None if the attempt is over, or went on with another answer.
        """
        with self._on(ref.run_id) as tx:
            if tx is None:
                return None
            claim = tx.adopt(ref, attempt, token)
            tx.effects.applied = False
        return claim

    def hand_back(self, ref: StepRef, attempt: int) -> Effects:
        """Gives a step back, for another worker to take; that is no failure."""
        with self._on(ref.run_id) as tx:
            if tx is None:
                return NOTHING
            tx.effects.applied = steps.leave(
                tx, ref, attempt, "handed_back", "status = 'ready', lease_until = now()", of=["running"]
            )
        return tx.effects

    def take_over(self, ref: StepRef, attempt: int) -> Effects:
        """Claims a step whose worker is gone, or whose message was lost."""
        with self._on(ref.run_id, skip_locked=True) as tx:
            if tx is None or not tx.run.may_start_steps:
                return untouched(tx)
            tx.cursor.execute(
                "UPDATE steps SET deaths = deaths + (status = 'running')::int WHERE run_id = %s AND step_id = %s"
                " AND item = %s AND attempt = %s AND status IN ('ready', 'running') AND lease_until < now()"
                " RETURNING deaths, status",
                [ref.run_id, ref.step_id, ref.item, attempt],
            )
            row = tx.cursor.fetchone()
            if row is None:
                return untouched(tx)
            if row[0] >= MOST_DEATHS:
                self._give_up(tx, ref, attempt, WorkerLost())
                return tx.effects
            if row[1] == "running":
                steps.leave(tx, ref, attempt, "lost", "lease_until = NULL", of=["running"])
            tx.claim(ref, of=["ready", "running"])
        return tx.effects

    def wake(self, ref: StepRef, attempt: int) -> Effects:
        """Ends a wait whose time has come: a retry begins, a duration is over, a signal is missed."""
        with self._on(ref.run_id, skip_locked=True) as tx:
            if tx is None or not tx.run.may_start_steps:
                return untouched(tx)
            tx.cursor.execute(
                "SELECT signal, child_run_id, attempt_started_at IS NULL FROM steps WHERE run_id = %s AND step_id = %s"
                " AND item = %s AND attempt = %s AND status = 'waiting' AND due_at <= now()",
                [ref.run_id, ref.step_id, ref.item, attempt],
            )
            row = tx.cursor.fetchone()
            if row is None:
                return untouched(tx)
            signal, child, is_retry = row
            if is_retry:
                tx.claim(ref, of=["waiting"])
            elif child is None:
                self._end_wait(tx, ref, attempt, signal=signal)
            else:
                self._time_out_sub_run(tx, ref, attempt, child)
        return tx.effects

    def _time_out_sub_run(self, tx: RunTransaction, ref: StepRef, attempt: int, child: UUID) -> None:
        timeout = self._definition(tx).steps[ref.step_id].timeout
        tx.effects.orphans.append(child)
        self._fail(tx, ref, attempt, StepTimedOut(f"the sub-run did not end within {timeout:g} s"))

    def time_out_step(self, ref: StepRef, attempt: int) -> Effects:
        """Ends an attempt that is past its timeout."""
        return self.fail(ref, attempt, StepTimedOut())

    def _straight_on(self, ref: StepRef, attempt: int, body: bytes, output: Any) -> Effects | None:
        """Records an output where the steps that follow wait for nothing else; None where nothing was recorded."""
        definition = self._definitions.known(ref.run_id)
        if definition is None or self._owner is None or ref.item != NO_ITEM:
            return None
        step = definition.steps[ref.step_id]
        if not step.dependents or any(len(definition.steps[name].depends_on) > 1 for name in step.dependents):
            return None
        effects = step_succeeded(
            self._database,
            ref,
            attempt,
            output=body,
            has_data=has_data(output),
            following=step.dependents,
            owner=self._owner,
            lease=self.lease,
        )
        if effects is not None:
            traces.tell_attempt(effects.attempts[0], effects.claims[0].trace, step.type.name, self._metrics)
        return effects

    def _conclude(
        self, ref: StepRef, attempt: int, status: str, *, output: Any = None, body: bytes | None = None
    ) -> Effects:
        with self._on(ref.run_id) as tx:
            if tx is None or tx.run.is_finished:
                return untouched(tx)
            counts = _counted(tx, ref, attempt, output)
            if not tx.finish(ref, attempt, status, output=body, has_data=has_data(output), counts=counts):
                return untouched(tx)
            self._after(tx, ref, status, None)
        return tx.effects

    def _fail(self, tx: RunTransaction, ref: StepRef, attempt: int, error: CitadelError) -> bool:
        """Retries a step later, or ends it as failed; False if its attempt is over already."""
        step = self._definition(tx).steps[ref.step_id]
        if error.transient and self._retry(tx, ref, attempt, step, error):
            return True
        return self._give_up(tx, ref, attempt, error)

    def _give_up(self, tx: RunTransaction, ref: StepRef, attempt: int, error: CitadelError) -> bool:
        """Ends a step as failed; False if its attempt is over already."""
        counts = _counted(tx, ref, attempt, None)
        if not tx.finish(ref, attempt, "failed", error=error, counts=counts):
            return False
        self._after(tx, ref, "failed", error)
        return True

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
        told = error.data.model_dump()
        steps.leave(
            tx,
            ref,
            attempt,
            "retried",
            "status = 'waiting', tries = tries + 1, attempt = steps.attempt + 1, error = %s, child_run_id = NULL,"
            " lease_until = NULL, due_at = now() + make_interval(secs => %s)",
            Jsonb(told),
            delay,
            of=["running", "waiting"],
            error=error.code,
        )
        tx.event("step_retrying", ref.step_id, ref.item, error=told, delay_s=round(delay, 3), tries=row[0] + 1)
        return True

    def _end_wait(self, tx: RunTransaction, ref: StepRef, attempt: int, *, signal: str | None) -> None:
        if signal is None:
            tx.finish(ref, attempt, "succeeded", output=b"{}")
            self._after(tx, ref, "succeeded", None)
        else:
            error = DeadlineExceeded(f"the signal {signal!r} did not come in time")
            tx.finish(ref, attempt, "failed", error=error)
            self._after(tx, ref, "failed", error)


def _counted(tx: RunTransaction, ref: StepRef, attempt: int, output: Any) -> dict[str, int]:
    """What the event tells of the requests of a chunk that ends with that output; None for one that fails."""
    if tx.run.kind != "batch" or ref.item == NO_ITEM:
        return {}
    failed = None if output is None else batches.failed_requests(output)
    return batches.settle(tx.cursor, ref, attempt, failed)
