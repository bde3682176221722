"""Sub-runs: a step of type `workflow` is a run of its own."""

import uuid
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson

from citadel_common.errors import InvalidInput, KeyOfAncestor, PayloadTooLarge, SubRunFailed
from citadel_orchestration.db import concurrency_keys, runs, steps
from citadel_orchestration.db.models import Effects, EndedRun, NewRun, ParentStep, StepClaim, StepRef
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.engine.run_commands import restart
from citadel_orchestration.engine.scope import Reader, context_of, outcome_of
from citadel_orchestration.engine.step_transitions import StepTransitions
from citadel_orchestration.engine.submission import Origin, Submissions
from citadel_orchestration.engine.transactions import RunTransactions, unchanged
from citadel_orchestration.step_types import StartRun

MOST_NESTED = 5


def sub_run(submissions: Submissions, claim: StepClaim, effect: StartRun) -> NewRun:
    """Return the run that a step starts; the same attempt starts the same run. Its idempotency key is ignored.

    Raises:
        InvalidDefinition: The definition is not valid.
        InvalidInput: Runs are nested too deeply.
    """
    if claim.depth >= MOST_NESTED:
        raise InvalidInput.at("definition", f"runs are nested {MOST_NESTED} deep already")
    definition = submissions.check(effect.definition)
    place = f"{claim.ref.step_id}/{claim.ref.item}/{claim.attempt}"
    run = submissions.run_of(
        definition,
        run_id=uuid.uuid5(claim.ref.run_id, place),
        origin=Origin(
            parent=ParentStep(ref=claim.ref, attempt=claim.attempt),
            depth=claim.depth + 1,
            lane=claim.lane,
        ),
        context=effect.context,
    )
    return replace(run, idempotency_key=None)


class SubRuns:
    """Starts sub-runs and reports their ends to the steps that wait for them; thread-safe."""

    def __init__(self, transactions: RunTransactions, transitions: StepTransitions) -> None:
        self._transactions = transactions
        self._transitions = transitions

    def start(self, ref: StepRef, attempt: int, run: NewRun) -> tuple[Effects, Effects]:
        """Start a sub-run and let the step wait for it; one that the step had before a retry goes on instead.

        Returns:
            The effects on the step's run and on the sub-run.

        Raises:
            KeyOfAncestor: The sub-run would wait for a run that waits for it.
        """
        with self._transactions.on(ref.run_id) as tx:
            child = None if tx is None else self._earlier_child(tx, ref, attempt)
            run_id = run.run_id if child is None else child.run.run_id
            if tx is None or not steps.park(tx, ref, attempt, child=run_id, seconds=_timeout(tx, ref)):
                return unchanged(tx), Effects(applied=False)
            _check_key(tx, run)
            begun = self._submit(tx, run) if child is None else _continue(child, attempt)
            tx.event("step_waiting", ref.step_id, ref.item, run_id=str(run_id))
        self._transactions.changed(run_id)
        return tx.effects, begun

    def _earlier_child(self, tx: RunTransaction, ref: StepRef, attempt: int) -> RunTransaction | None:
        """Lock the sub-run that the step had when its run ended."""
        child = steps.child_of(tx, ref, attempt)
        return None if child is None else self._transactions.lock(tx.cursor, child)

    def _submit(self, tx: RunTransaction, run: NewRun) -> Effects:
        submitted = runs.submit(tx.cursor, run, republish=self._transactions.republish)
        return Effects(ready=[StepRef(run_id=run.run_id, step_id=step_id) for step_id in submitted.ready])

    def report(self, parent: ParentStep, run_id: UUID) -> Effects:
        """End the step that waited for a sub-run, as that ended."""
        try:
            outcome, context = self._end_of(run_id)
        except PayloadTooLarge as too_large:
            failure = PayloadTooLarge(f"the final context of the sub-run {run_id}: {too_large.message}")
            return self._transitions.fail(parent.ref, parent.attempt, failure)
        if outcome.status == "succeeded":
            value = None if outcome.output is None else orjson.loads(outcome.output)
            output = {"output": value, "final_context": context, "run_id": str(run_id)}
            return self._transitions.succeed(parent.ref, parent.attempt, output)
        reason = (outcome.error or {}).get("message", outcome.status)
        error = SubRunFailed(f"the sub-run {run_id} {outcome.status}: {reason}")
        return self._transitions.fail(parent.ref, parent.attempt, error)

    def _end_of(self, run_id: UUID) -> tuple[runs.RunOutcome, dict[str, Any]]:
        """Return the outcome of a run and, if it has succeeded, its final context."""
        with self._transactions.database.cursor() as cursor:
            reader = Reader(cursor, self._transactions.limits.final_context)
            outcome = outcome_of(reader, run_id)
            return outcome, context_of(reader, run_id) if outcome.status == "succeeded" else {}


def _check_key(tx: RunTransaction, run: NewRun) -> None:
    key = run.concurrency_key
    ancestor = None if key is None else concurrency_keys.ancestor_with(tx.cursor, tx.run.run_id, key)
    if ancestor is not None:
        raise KeyOfAncestor.at(
            "definition.concurrency.key", f"{key!r} is the key of run {ancestor}, which waits for it"
        )


def _continue(child: RunTransaction, attempt: int) -> Effects:
    """Give a sub-run to a later attempt of its step, and run what it left undone."""
    runs.set_parent_attempt(child, attempt)
    run = child.run
    if run.status == "succeeded":
        return Effects(ended=EndedRun(run_id=run.run_id, status=run.status, parent=run.parent))
    if not run.is_finished:
        return Effects(applied=False)
    restart(child, child.definition.deadline, may_wait=True)
    child.save()
    return child.effects


def _timeout(tx: RunTransaction, ref: StepRef) -> float | None:
    """Return the seconds that a sub-run may take; None without a timeout in the definition: the default suits calls."""
    step = tx.definition.steps[ref.step_id]
    written = tx.definition.raw["steps"][step.index].get("timeout")
    default = (tx.definition.raw.get("defaults") or {}).get("timeout")
    return None if written is None and default is None else step.timeout
