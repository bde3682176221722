"""Execution of claimed steps: their parameters are evaluated, their effects carried out, their ends recorded."""

import asyncio
import functools
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import structlog

from citadel_common.errors import CitadelError, InvalidInput, StoreUnavailable
from citadel_common.loop_thread import LoopThread
from citadel_common.memory import Held, HeldMemory, MemoryBudget
from citadel_common.tasks.failure_policy import HandBack
from citadel_common.telemetry import messages, tracing
from citadel_contracts.workflows import EMBEDDED, EmbedStep, StepEmbedded
from citadel_orchestration.db.models import NO_ITEM, Effects, StepClaim, StepRef
from citadel_orchestration.definition.definition import Step
from citadel_orchestration.engine import traces
from citadel_orchestration.engine.admission import Admission, Slot
from citadel_orchestration.engine.answers import output_of
from citadel_orchestration.engine.dispatch import Dispatcher
from citadel_orchestration.engine.fair_threads import FairThreadPool
from citadel_orchestration.engine.in_flight import StepsInFlight
from citadel_orchestration.engine.outcomes import NOTHING, Outcome, Outcomes, internal_error, patiently
from citadel_orchestration.engine.scope import Scope
from citadel_orchestration.engine.step_deadlines import deadline_of, within_deadline
from citadel_orchestration.engine.step_inputs import StepInputs
from citadel_orchestration.engine.step_transitions import StepTransitions
from citadel_orchestration.engine.sub_runs import SubRuns, sub_run
from citadel_orchestration.engine.submission import Submissions
from citadel_orchestration.step_types import (
    CallCount,
    Embed,
    Embedded,
    Execute,
    Output,
    Resource,
    StartRun,
    StepCall,
    StepEffect,
    Wait,
)

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Executes the steps of one worker; thread-safe. No method waits for a step to end.

    Attributes:
        inputs: Reads what steps need.
        transitions: Record what happens to steps.
        sub_runs: Starts sub-runs.
        submissions: Check the definitions of sub-runs.
        dispatcher: Sends texts to the embeddings workers.
        loop: Runs the coroutines of steps.
        threads: Run what waits for PostgreSQL.
        in_flight: The steps.
        outcomes: Records the ends of steps, now or later.
        stopping: Set when the worker is to end: no further step begins.
        memory: Memory for what is read, evaluated and recorded.
        executing: Memory for the parameters of steps that execute.
        admission: Slots of the resources that steps use.
        follow: Carries out what a committed transition asks for.
    """

    inputs: StepInputs
    transitions: StepTransitions
    sub_runs: SubRuns
    submissions: Submissions
    dispatcher: Dispatcher
    loop: LoopThread
    threads: FairThreadPool
    in_flight: StepsInFlight
    outcomes: Outcomes
    stopping: threading.Event
    memory: MemoryBudget
    executing: HeldMemory
    admission: Admission
    follow: Callable[[Effects], None]

    def start(self, claim: StepClaim) -> None:
        """Begin a claimed step."""
        self._guard(self._start, claim)
        self.admission.settle(claim.ref, claim.attempt)

    def take_answer(self, message: StepEmbedded) -> None:
        """Go on with a step whose vectors have come, whichever worker had claimed it.

        Raises:
            StoreUnavailable: PostgreSQL does not take what follows; the answer is to be given to a worker again.
        """
        if message.trace is None:
            self._take_answer(message)
            return
        with messages.processing(EMBEDDED, message.trace, system=messages.REDIS):
            self._take_answer(message)

    def _take_answer(self, message: StepEmbedded) -> None:
        ref = StepRef(run_id=UUID(message.run_id), step_id=message.step_id, item=message.item)
        type_ = self._persist(functools.partial(self.inputs.step, ref)).type
        output, error = output_of(type_, message)
        if error is not None:
            end = functools.partial(self.transitions.fail, ref, message.attempt, error)
        elif output is not None:
            end = functools.partial(self.transitions.succeed, ref, message.attempt, output)
        else:
            self._adopt(ref, message)
            return
        try:
            effects = self._persist(end)
        except StoreUnavailable:
            raise
        except CitadelError as refused:
            effects = self._persist(functools.partial(self.transitions.fail, ref, message.attempt, refused))
        if not effects.applied:
            self.transitions.late("vectors", ref, message.attempt)
        self.follow(effects)

    def _adopt(self, ref: StepRef, message: StepEmbedded) -> None:
        """Take a step over from the worker that sent its texts, and go on with it."""
        token = uuid.uuid4().hex
        claim = self._persist(functools.partial(self.transitions.adopt, ref, message.attempt, token=token))
        if claim is None:
            self.transitions.late("vectors", ref, message.attempt)
            return
        self.in_flight.add(claim)
        self._guard(functools.partial(self._resume, message), claim)

    def _resume(self, message: StepEmbedded, claim: StepClaim) -> None:
        def begin() -> Callable[[], None]:
            step, scope = self.inputs.read(claim)
            parameters, size = self.inputs.parameters(step, scope)
            effect = step.type.begin(parameters)
            if not isinstance(effect, Embed) or effect.then is None:
                raise CitadelError(f"step {step.step_id}: type {step.type.name!r} does not go on with its vectors")
            found = effect.then([Embedded.of(part) for part in message.parts])
            return functools.partial(self._carry_out, claim, step, found, size)

        self.memory.run(begin)()

    def _start(self, claim: StepClaim) -> None:
        """Evaluate what a claimed step needs, and carry out its effect."""
        if self.stopping.is_set():
            self.transitions.hand_back(claim.ref, claim.attempt)
            self.in_flight.drop([claim])
            return
        self.memory.run(functools.partial(self._prepare, claim))()

    def _prepare(self, claim: StepClaim) -> Callable[[], None]:
        """Evaluate what a step needs; return what carries it out, which needs no scope any more."""
        step, scope = self.inputs.read(claim)
        whole = claim.ref.item == NO_ITEM
        if step.when is not None and whole and not step.when.evaluate(scope.names):
            return functools.partial(
                self._record, claim, functools.partial(self.transitions.skip, claim.ref, claim.attempt)
            )
        if step.for_each is not None and whole:
            return functools.partial(self._record, claim, self._expansion(claim, step, scope))
        parameters, size = self.inputs.parameters(step, scope)
        return functools.partial(self._carry_out, claim, step, step.type.begin(parameters), size)

    def _expansion(self, claim: StepClaim, step: Step, scope: Scope) -> Callable[[], Effects]:
        """Return the transition that begins a `for_each`."""
        items, max_parallel = step.for_each or (None, 1)
        found = items.evaluate(scope.names) if items is not None else []
        if not isinstance(found, list):
            raise InvalidInput.at("for_each.items", f"must be a list, not {type(found).__name__}")
        if len(found) > (most := self.submissions.limits.max_items):
            raise InvalidInput.at("for_each.items", f"holds {len(found)}, the limit (workflows.max_items) is {most}")
        return functools.partial(self.transitions.expand, claim.ref, claim.attempt, found, max_parallel=max_parallel)

    def _carry_out(self, claim: StepClaim, step: Step, effect: StepEffect, size: int) -> None:
        match effect:
            case Execute():
                self._execute(claim, step, effect, size)
            case Embed():
                self._embed(claim, step, effect, size)
            case StartRun():
                self._start_run(claim, effect)
            case Wait(seconds=seconds, signal=signal):
                wait = functools.partial(self.transitions.wait, claim.ref, claim.attempt, seconds=seconds)
                self._record(claim, functools.partial(wait, signal=signal))

    def _start_run(self, claim: StepClaim, effect: StartRun) -> None:
        run = self.memory.run(functools.partial(sub_run, self.submissions, claim, effect))

        def transition() -> Effects:
            effects, begun = self.sub_runs.start(claim.ref, claim.attempt, run)
            self.threads.submit(run.run_id, self.follow, begun)
            return effects

        self._record(claim, transition)

    def _embed(self, claim: StepClaim, step: Step, effect: Embed, size: int) -> None:
        if size > (limit := self.inputs.limits.message).bytes:
            limit.check([effect.echo, *(part.texts for part in effect.requests)], "what is sent to be embedded")
        deadline = self.in_flight.awaits_vectors(claim, deadline_of(claim, step, waits=step.start_timeout))
        message = EmbedStep(
            run_id=str(claim.ref.run_id),
            step_id=claim.ref.step_id,
            item=claim.ref.item,
            attempt=claim.attempt,
            parts=list(effect.requests),
            echo=effect.echo,
            # older embeddings workers refuse this field: it is sent only if it differs from the message's lane
            lane=effect.lane if effect.lane != claim.lane else None,
            deadline=self.dispatcher.time_of(deadline),
        )
        not_sent = functools.partial(self._not_sent, claim)
        self.dispatcher.embed(message, lane=claim.lane, timeout=step.timeout, on_failure=not_sent)

    def _not_sent(self, claim: StepClaim, error: StoreUnavailable) -> None:
        self.in_flight.was_not_sent(claim)
        log.warning("texts_not_sent", error=error.message, **_about(claim))

    def _execute(self, claim: StepClaim, step: Step, effect: Execute, size: int) -> None:
        """Begin to execute a step, once it has a slot of the resource that it uses; else let it wait for one.

        Its parameters are in memory until it ends; without room it begins anew when there is.
        """
        held = self.executing.hold(size, functools.partial(self._start_again, claim))
        if held is None:
            return
        slot: Slot | None = None
        resource = effect.uses()
        if resource is not None:
            try:
                slot = self._persist(functools.partial(self.admission.enter, claim, resource))
            except BaseException:
                held.release()
                raise
            if slot is None:
                held.release()
                self._queue(claim, resource)
                return
        self._begin(claim, step, effect, slot, held)

    def _start_again(self, claim: StepClaim) -> None:
        with suppress(RuntimeError):  # the threads are ending: the step is handed back
            self.threads.submit(claim.ref.run_id, self.start, claim)

    def _queue(self, claim: StepClaim, resource: Resource) -> None:
        self._record(claim, functools.partial(self.transitions.queue, claim.ref, claim.attempt, resource.name))
        self.threads.submit(resource, self.admission.admit, resource)

    def _begin(self, claim: StepClaim, step: Step, effect: Execute, slot: Slot | None, held: Held) -> None:
        call = StepCall(
            run_id=str(claim.ref.run_id),
            step_id=claim.ref.step_id,
            item=None if claim.ref.item == NO_ITEM else claim.ref.item,
            attempt=claim.attempt,
            deadline=deadline_of(claim, step),
            calls=CallCount(made=claim.calls),
        )

        def on_end(task: "asyncio.Task[Output]") -> None:
            held.release()
            self._on_end(claim, slot, task)

        started = self.loop.submit(within_deadline(effect, call, step.timeout), on_end)
        self.in_flight.executes(claim, started)

    def _on_end(self, claim: StepClaim, slot: Slot | None, task: "asyncio.Task[Output]") -> None:
        """Hand the end of a step from the loop's thread to one that may wait for PostgreSQL."""
        try:
            if slot is not None:
                self.threads.submit(slot.resource, functools.partial(self._leave, slot, task))
            self.threads.submit(claim.ref.run_id, self._guard, functools.partial(self._conclude, task), claim)
        except RuntimeError:
            log.info("step_ended_too_late", **_about(claim))

    def _leave(self, slot: Slot, task: "asyncio.Task[Output]") -> None:
        error = None if task.cancelled() else task.exception()
        asked = error.retry_after if isinstance(error, CitadelError) else None
        self.admission.leave(slot, cool_down=asked or 0.0)

    def _conclude(self, task: "asyncio.Task[Output]", claim: StepClaim) -> None:
        try:
            output = task.result()
        except asyncio.CancelledError:
            return  # cancelled: the step is no longer this worker's, or was handed back
        except HandBack:
            self._record(claim, functools.partial(self.transitions.hand_back, claim.ref, claim.attempt))
            return
        succeed = functools.partial(self.transitions.succeed, claim.ref, claim.attempt, output)
        self._record(claim, succeed, output=output)

    def _guard(self, act: Callable[[StepClaim], None], claim: StepClaim) -> None:
        """Do something for an attempt, below its span. Whatever happens, the step ends.

        Either its failure is recorded now, or another worker takes it when its lease runs out.
        """
        with tracing.within(traces.of_attempt(claim.trace, claim.ref, claim.attempt)):
            try:
                act(claim)
            except StoreUnavailable as error:
                log.warning("step_not_started", error=error.message, **_about(claim))
                self.in_flight.drop([claim])
            except CitadelError as error:
                self._fail(claim, error)
            except Exception as error:
                log.exception("step_crashed", **_about(claim))
                self._fail(claim, internal_error(error))

    def _fail(self, claim: StepClaim, error: CitadelError) -> None:
        """Record a failure; if even that fails, record the plain fact, else leave the step to another worker."""
        for failure in (error, CitadelError(f"the step failed ({error.code}), and its error could not be recorded")):
            try:
                self._record(claim, functools.partial(self.transitions.fail, claim.ref, claim.attempt, failure))
            except Exception:
                log.exception("step_given_up", **_about(claim))
            else:
                return
        self.in_flight.drop([claim])

    def _record(self, claim: StepClaim, transition: Callable[[], Effects], *, output: Any = NOTHING) -> None:
        outcome = Outcome(
            claim=claim,
            transition=functools.partial(self.memory.run, transition),
            on_refusal=functools.partial(self._fail, claim),
            output=output,
        )
        self.outcomes.record(outcome)

    def _persist(self, transition: Callable[[], T]) -> T:
        return patiently(functools.partial(self.memory.run, transition), self.stopping)


def _about(claim: StepClaim) -> dict[str, str]:
    return {"run_id": str(claim.ref.run_id), "step_id": claim.ref.step_id}
