"""Transitions of one step: each a short transaction, fenced by the step's attempt.

A transition claims what it makes ready in the same transaction, and the caller executes the claims after the commit:
a step needs no message to begin, and a worker that dies in between leaves a lease that runs out. A transition that
comes late, twice, or for a run that has ended changes nothing.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import structlog

from citadel_common.backoff import full_jitter
from citadel_common.errors import CitadelError, StartTimedOut, from_data
from citadel_common.telemetry import names
from citadel_orchestration.db import admission, batches, runs, steps
from citadel_orchestration.db.models import NO_ITEM, Effects, StepClaim, StepRef, Wait
from citadel_orchestration.db.step_succeeded import step_succeeded
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.definition.definition import Step
from citadel_orchestration.engine import scheduling
from citadel_orchestration.engine.outputs import encoded_items, encoded_output
from citadel_orchestration.engine.transactions import RunTransactions, unchanged

log = structlog.get_logger(__name__)
_JITTER = 0.1
"""Part of a delay that a server asks for, by which it is made longer at random: others were told the same."""


class StepTransitions:
    """Starts, ends and parks steps; thread-safe.

    Args:
        transactions: Opens transactions.
        max_output_bytes: Bytes in the output of one step.
    """

    def __init__(self, transactions: RunTransactions, *, max_output_bytes: int) -> None:
        self._transactions = transactions
        self._limit = replace(transactions.limits.output, bytes=max_output_bytes)

    @property
    def owner(self) -> str | None:
        """Name under which steps are leased."""
        return self._transactions.owner

    def late(self, kind: str, ref: StepRef, attempt: int) -> None:
        """Count a result that came after its attempt was over."""
        self._transactions.metrics.count(names.LATE_RESULTS, 1, kind=kind)
        log.info("late_result", kind=kind, run_id=str(ref.run_id), step_id=ref.step_id, attempt=attempt)

    def start(self, ref: StepRef) -> Effects:
        """Claim a step that is ready."""
        with self._transactions.on(ref.run_id) as tx:
            if tx is None or not tx.run.may_start_steps or tx.claim(ref, of=["ready"]) is None:
                return unchanged(tx)
        return tx.effects

    def succeed(self, ref: StepRef, attempt: int, output: Any) -> Effects:
        """Record a step's output and schedule what follows; an output that cannot be stored fails the step."""
        try:
            output, body = encoded_output(output, self._limit)
        except CitadelError as error:
            return self.fail(ref, attempt, error)
        effects = self._succeed_in_one_round_trip(ref, attempt, body, output)
        return effects or self._conclude(ref, attempt, "succeeded", output=output, body=body)

    def skip(self, ref: StepRef, attempt: int) -> Effects:
        """Record that a step's condition does not hold, and schedule what follows."""
        return self._conclude(ref, attempt, "skipped")

    def fail(self, ref: StepRef, attempt: int, error: CitadelError) -> Effects:
        """Retry a step later if its error is retryable and attempts are left, else end it as failed."""
        with self._transactions.on(ref.run_id) as tx:
            if tx is None or tx.run.is_finished or not retry_or_fail(tx, ref, attempt, error):
                return unchanged(tx)
        return tx.effects

    def time_out(self, ref: StepRef, attempt: int) -> Effects:
        """Fail a step whose vectors have come neither within its start timeout nor its timeout after that."""
        with self._transactions.on(ref.run_id) as tx:
            if tx is None or tx.run.is_finished:
                return unchanged(tx)
            step = tx.definition.steps[ref.step_id]
            limit = f"{step.start_timeout:g} s (start_timeout) and {step.timeout:g} s (timeout)"
            error = StartTimedOut(f"no embeddings worker answered within {limit}; check that such workers run")
            if not fail(tx, ref, attempt, error):
                return unchanged(tx)
        return tx.effects

    def expand(self, ref: StepRef, attempt: int, items: Sequence[Any], *, max_parallel: int) -> Effects:
        """Begin a `for_each`: insert a row per item, and claim the first ones."""
        if not items:
            return self.succeed(ref, attempt, [])
        bodies = encoded_items(items, self._transactions.limits.items)
        with self._transactions.on(ref.run_id) as tx:
            if tx is None or not steps.park(tx, ref, attempt, items_total=len(items)):
                return unchanged(tx)
            steps.insert_items(tx, ref, bodies)
            tx.event("step_expanded", ref.step_id, items=len(items))
            scheduling.start_items(tx, ref.step_id, max_parallel)
        return tx.effects

    def wait(self, ref: StepRef, attempt: int, *, seconds: float | None, signal: str | None) -> Effects:
        """Let a step wait for a time or a signal; a signal that came before is taken at once."""
        with self._transactions.on(ref.run_id) as tx:
            if tx is None or not steps.park(tx, ref, attempt, seconds=seconds, signal=signal):
                return unchanged(tx)
            payload = steps.take_signal(tx, signal) if signal is not None else None
            if payload is not None:
                scheduling.succeed(tx, ref, attempt, orjson.loads(payload))
            else:
                tx.event("step_waiting", ref.step_id, ref.item, signal=signal)
        return tx.effects

    def queue(self, ref: StepRef, attempt: int, resource: str) -> Effects:
        """Let a step wait for a slot of a resource, held by no worker."""
        with self._transactions.on(ref.run_id) as tx:
            if tx is None or not queue(tx, ref, attempt, resource):
                return unchanged(tx)
        return tx.effects

    def admit(self, ref: StepRef, attempt: int, resource: str) -> Effects:
        """Claim a step that waits for a slot of a resource; the caller holds the slot."""
        with self._transactions.on(ref.run_id) as tx:
            wait = steps.wait_of(tx, ref, attempt) if tx is not None and tx.run.may_start_steps else None
            if tx is None or wait is None or wait.waiting_for != resource:
                return unchanged(tx)
            tx.claim(ref, of=["waiting"], wait=wait)
        self._transactions.report_wait(wait, "admitted", ref, attempt, tx.run.trace)
        return tx.effects

    def adopt(self, ref: StepRef, attempt: int, *, token: str) -> StepClaim | None:
        """Move a running step, whose vectors have come, to this worker, once per attempt.

        Args:
            ref: The step.
            attempt: Its attempt.
            token: Identifies the answer with the vectors; asking again with the same token changes nothing.

        Returns:
            None if the attempt is over, or was adopted for another answer.
        """
        with self._transactions.on(ref.run_id) as tx:
            if tx is None:
                return None
            claim = tx.adopt(ref, attempt, token)
            tx.effects.applied = False  # only the step's lease has changed: the run's row and its followers have not
        return claim

    def hand_back(self, ref: StepRef, attempt: int) -> Effects:
        """Give a step back for another worker to take; the attempt does not count as failed."""
        with self._transactions.on(ref.run_id) as tx:
            if tx is None or not steps.hand_back(tx, ref, attempt):
                return unchanged(tx)
        return tx.effects

    def _succeed_in_one_round_trip(self, ref: StepRef, attempt: int, body: bytes, output: Any) -> Effects | None:
        """Record an output by the stored function; None if the case is another one, and nothing was recorded.

        It is for steps whose dependents depend on nothing else, in runs whose definition is known here.
        """
        transactions = self._transactions
        definition = transactions.definitions.known(ref.run_id)
        if definition is None or transactions.owner is None or ref.item != NO_ITEM or _calls_of(output):
            return None
        step = definition.steps[ref.step_id]
        if not step.dependents or any(len(definition.steps[name].depends_on) > 1 for name in step.dependents):
            return None
        effects = step_succeeded(
            transactions.database,
            ref,
            attempt,
            step=step,
            output=body,
            has_data=scheduling.has_data(output),
            owner=transactions.owner,
            lease=transactions.lease,
        )
        if effects is not None:
            transactions.report(effects, effects.claims[0].trace)
            transactions.changed(ref.run_id)
        return effects

    def _conclude(
        self, ref: StepRef, attempt: int, status: str, *, output: Any = None, body: bytes | None = None
    ) -> Effects:
        with self._transactions.on(ref.run_id) as tx:
            if tx is None or tx.run.is_finished:
                return unchanged(tx)
            counts = _request_counts(tx, ref, attempt, output) | _calls_of(output)
            has_data = scheduling.has_data(output)
            if not tx.finish(ref, attempt, status, output=body, has_data=has_data, counts=counts):
                return unchanged(tx)
            scheduling.step_ended(tx, ref, status)
        return tx.effects


def retry_or_fail(tx: RunTransaction, ref: StepRef, attempt: int, error: CitadelError) -> bool:
    """Retry a step later, or end it as failed; return False if its attempt is over already.

    A delay that the error asks for is kept, unless it is longer than the step or the run may take: then the step fails.
    """
    if not error.retryable:
        return fail(tx, ref, attempt, error)
    step = tx.definition.steps[ref.step_id]
    too_long = _problem_of_delay(tx, step, error.retry_after)
    if too_long is not None:
        return fail(tx, ref, attempt, _with_words(error, too_long))
    return _retry(tx, ref, attempt, error) or fail(tx, ref, attempt, error)


def fail(tx: RunTransaction, ref: StepRef, attempt: int, error: CitadelError) -> bool:
    """End a step as failed; return False if its attempt is over already."""
    counts = _request_counts(tx, ref, attempt, None)
    if not tx.finish(ref, attempt, "failed", error=error, counts=counts):
        return False
    scheduling.step_ended(tx, ref, "failed", error)
    return True


def _retry(tx: RunTransaction, ref: StepRef, attempt: int, error: CitadelError) -> bool:
    """Let the step wait for its next attempt; return False if it has none left, or its attempt is over."""
    policy = tx.definition.steps[ref.step_id].retry
    tries = steps.tries(tx, ref, attempt)
    if tries is None or tries + 1 >= policy.max_attempts:
        return False
    asked = error.retry_after or 0.0
    backoff = full_jitter(tries, base=policy.delay, factor=policy.factor, cap=policy.max_delay)
    delay = max(backoff, asked * random.uniform(1.0, 1.0 + _JITTER))  # noqa: S311  (jitter needs no secrecy)
    steps.retry_later(tx, ref, attempt, error, delay=delay)
    tx.event(
        "step_retrying", ref.step_id, ref.item, error=error.data.model_dump(), delay_s=round(delay, 3), tries=tries + 1
    )
    return True


def queue(tx: RunTransaction, ref: StepRef, attempt: int, resource: str) -> bool:
    """Let a step wait for a slot of a resource until its start timeout; return False if its attempt is over."""
    patience = tx.definition.steps[ref.step_id].start_timeout
    queued = admission.queue(tx, ref, attempt, resource, patience=patience)
    if queued:
        tx.event("step_waiting", ref.step_id, ref.item, waiting_for=resource)
    return queued


def never_started(tx: RunTransaction, ref: StepRef, attempt: int, wait: Wait) -> bool:
    """Fail a step that waited for its start for too long; return False if its attempt is over."""
    limit = tx.definition.steps[ref.step_id].start_timeout
    busy = admission.occupancy(tx, wait.waiting_for)
    reason = f"it waited {wait.seconds:.3g} s for {wait.waiting_for}: {busy}"
    return fail(tx, ref, attempt, StartTimedOut(f"the step did not start within {limit:g} s (start_timeout): {reason}"))


def _problem_of_delay(tx: RunTransaction, step: Step, asked: float | None) -> str | None:
    """Return why a delay that a server asks for cannot be waited for; None if it can, or none is asked for."""
    if asked is None:
        return None
    if asked > step.timeout:
        return f"it asks to wait {asked:.6g} s, which is longer than the step's timeout of {step.timeout:g} s"
    left = runs.seconds_left(tx)
    if left is not None and asked > left:
        return f"it asks to wait {asked:.6g} s, which is longer than the run has left"
    return None


def _with_words(error: CitadelError, words: str) -> CitadelError:
    return from_data(error.data.model_copy(update={"message": f"{error.message}; {words}"}))


def _calls_of(output: Any) -> dict[str, int]:
    """Return how many calls of an LLM an output names, for the event."""
    calls = output.get("calls") if isinstance(output, dict) else None
    return {"calls": calls} if type(calls) is int else {}


def _request_counts(tx: RunTransaction, ref: StepRef, attempt: int, output: Any) -> dict[str, int]:
    """Count the requests of a batch's chunk that ends with that output, None for a failed chunk; for the event."""
    if tx.run.kind != "batch" or ref.item == NO_ITEM:
        return {}
    failed = None if output is None else batches.failed_requests(output)
    return batches.settle(tx.cursor, ref, attempt, failed)
