"""Runs steps: what each claimed one does next, where it is executed, and how its end is recorded."""

import asyncio
import functools
import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

import structlog

from citadel_common.errors import CitadelError, InvalidInput, StoreUnavailable
from citadel_common.stores.postgres import Database
from citadel_common.telemetry import messages, tracing
from citadel_contracts.workflows import EMBEDDED, EmbeddedPart, EmbedPart, EmbedStep, StepEmbedded
from citadel_orchestration.db.models import NO_ITEM, Effects, EndedRun, ParentStep, StepClaim, StepRef
from citadel_orchestration.definition.definition import Step
from citadel_orchestration.engine import traces, vectors
from citadel_orchestration.engine.attempts import deadline_of, executed, parameters_of
from citadel_orchestration.engine.definitions import Definitions
from citadel_orchestration.engine.fair_threads import FairThreads
from citadel_orchestration.engine.in_flight import InFlight
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.scope import blank_scope, reads_nothing, scope_of
from citadel_orchestration.engine.step_loop import StepLoop
from citadel_orchestration.engine.step_transitions import StepTransitions
from citadel_orchestration.engine.sub_runs import SubRuns, sub_run
from citadel_orchestration.engine.submission import Submissions
from citadel_orchestration.steps.base import Parameters, StepCall

T = TypeVar("T")
log = structlog.get_logger(__name__)
THREADS = 8
"""Transitions at once; expressions and statements, never calls to LLMs."""
PER_RUN = 4
"""Those of one run: its steps begin side by side, and leave room for other runs."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between tries to record an outcome while PostgreSQL is away."""


class Publisher(Protocol):
    """Sends the engine's messages."""

    def embed(self, step: EmbedStep, *, lane: int, lost: Callable[[StoreUnavailable], None]) -> None:
        """To the embeddings workers; `lost` is called, in any thread, when the broker does not take it."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What an engine works with."""

    database: Database
    transitions: StepTransitions
    sub_runs: SubRuns
    commands: RunCommands
    definitions: Definitions
    submissions: Submissions
    loop: StepLoop
    publisher: Publisher
    answer: Callable[[EndedRun], None]


class Engine:
    """The steps of one worker; thread-safe. Nothing it does waits in the caller's thread for a step to end.

    Args:
        parts: What it works with.
        max_in_flight: Steps executing at once.
        stopping: Set when the worker is to end: no further step begins.
    """

    def __init__(self, parts: Parts, *, max_in_flight: int, stopping: threading.Event) -> None:
        self.in_flight = InFlight()
        self._database = parts.database
        self._transitions = parts.transitions
        self._sub_runs = parts.sub_runs
        self._commands = parts.commands
        self._definitions = parts.definitions
        self._submissions = parts.submissions
        self._loop = parts.loop
        self._publisher = parts.publisher
        self._answer = parts.answer
        self._max_in_flight = max_in_flight
        self._stopping = stopping
        self._here = threading.local()
        self._threads = FairThreads(THREADS, per_key=PER_RUN, name="transitions")

    @property
    def room(self) -> int:
        """How many more steps may execute here."""
        return 0 if self._stopping.is_set() else max(0, self._max_in_flight - self.in_flight.executing())

    def run_step(self, ref: StepRef) -> None:
        """Claims and starts a step that is ready; a duplicate does nothing."""
        if self.room:
            self.follow(self._transitions.start(ref))

    def embedded(self, message: StepEmbedded) -> None:
        """Goes on with a step whose vectors have come."""
        if message.trace is None:
            self._embedded(message)
            return
        with messages.processing(EMBEDDED, message.trace, system=messages.REDIS):
            self._embedded(message)

    def _embedded(self, message: StepEmbedded) -> None:
        ref = StepRef(run_id=UUID(message.run_id), step_id=message.step_id, item=message.item)
        done = vectors.output_of(message)
        if isinstance(done, CitadelError):
            self.follow(self._insistently(functools.partial(self._transitions.fail, ref, message.attempt, done)))
        elif done is not None:
            self.follow(self._insistently(functools.partial(self._transitions.succeed, ref, message.attempt, done)))
        else:
            self._adopt(ref, message)

    def follow(self, effects: Effects) -> None:
        """Does what a committed transition asks for: the first claimed step in this thread, others beside it."""
        if effects.ended is not None:
            self._after_end(effects.ended)
        for orphan in effects.orphans:
            self._later(self._cancel_orphan, orphan)
        for claim in effects.claims:
            self.in_flight.add(claim)
        for claim in effects.claims[1:]:
            self._threads.submit(claim.ref.run_id, self._guarded, self._start, claim)
        if effects.claims:
            self._start_here(effects.claims[0])

    def _start_here(self, claim: StepClaim) -> None:
        """Starts a step in this thread, after the one that it may be starting now: chains do not nest."""
        waiting: deque[StepClaim] | None = getattr(self._here, "waiting", None)
        if waiting is not None:
            waiting.append(claim)
            return
        self._here.waiting = waiting = deque([claim])
        try:
            while waiting:
                self._guarded(self._start, waiting.popleft())
        finally:
            self._here.waiting = None

    def resend(self, claim: StepClaim) -> None:
        """Sends a step's texts to the embeddings workers again."""
        self._threads.submit(claim.ref.run_id, self._guarded, self._start, claim)

    def cancel_children(self, run_id: UUID) -> None:
        """Cancels the sub-runs of a run that ended."""
        for effects in self._commands.cancel_children(run_id):
            self.follow(effects)

    def _cancel_orphan(self, run_id: UUID) -> None:
        self.follow(self._commands.cancel_orphan(run_id))

    def hand_back(self) -> None:
        """Gives all claimed steps back, for other workers to take."""
        for claim in self.in_flight.claims():
            try:
                self._transitions.hand_back(claim.ref, claim.attempt)
            except StoreUnavailable:
                log.warning("step_not_handed_back", run_id=str(claim.ref.run_id), step_id=claim.ref.step_id)
            self.in_flight.drop([claim])

    def close(self) -> None:
        """Ends the threads."""
        self._threads.close(finish=False)

    def _guarded(self, act: Callable[[StepClaim], None], claim: StepClaim) -> None:
        """Does something for an attempt, below its span."""
        with tracing.within(traces.of_attempt(claim.trace, claim.ref, claim.attempt)):
            self._guardedly(act, claim)

    def _guardedly(self, act: Callable[[StepClaim], None], claim: StepClaim) -> None:
        """Whatever happens to a step, it ends: in the record now, or by another worker when its lease runs out."""
        try:
            act(claim)
        except StoreUnavailable as error:
            where = {"run_id": str(claim.ref.run_id), "step_id": claim.ref.step_id}
            log.warning("step_not_started", error=error.message, **where)
            self.in_flight.drop([claim])
        except CitadelError as error:
            self._fail(claim, error)
        except Exception as error:
            log.exception("step_crashed", run_id=str(claim.ref.run_id), step_id=claim.ref.step_id)
            self._fail(claim, CitadelError(f"internal error: {type(error).__name__}"))

    def _fail(self, claim: StepClaim, error: CitadelError) -> None:
        """Records a failure; where not even that is possible here, the step is left to another worker."""
        try:
            self._record(claim, functools.partial(self._transitions.fail, claim.ref, claim.attempt, error))
        except Exception:
            log.exception("step_given_up", run_id=str(claim.ref.run_id), step_id=claim.ref.step_id)
            self.in_flight.drop([claim])

    def _start(self, claim: StepClaim) -> None:
        """Evaluates what a claimed step needs, and begins it."""
        if self._stopping.is_set():
            self._transitions.hand_back(claim.ref, claim.attempt)
            self.in_flight.drop([claim])
            return
        step, scope = self._read(claim)
        if step.when is not None and claim.ref.item == NO_ITEM and not step.when.evaluate(scope):
            self._record(claim, functools.partial(self._transitions.skip, claim.ref, claim.attempt))
        elif step.for_each is not None and claim.ref.item == NO_ITEM:
            self._expand(claim, step, scope)
        else:
            self._begin(claim, step, parameters_of(step, scope))

    def _read(self, claim: StepClaim) -> tuple[Step, dict[str, Any]]:
        """The step, and what its expressions see."""
        run_id = claim.ref.run_id
        known = self._definitions.known(run_id)
        if known is not None and reads_nothing(known.steps[claim.ref.step_id].references, claim.ref):
            return known.steps[claim.ref.step_id], blank_scope(run_id, claim.workflow_id)
        with self._database.cursor() as cursor:
            step = self._definitions.get(run_id, cursor).steps[claim.ref.step_id]
            return step, scope_of(cursor, claim.workflow_id, step.references, claim.ref)

    def _expand(self, claim: StepClaim, step: Step, scope: dict[str, Any]) -> None:
        items, max_parallel = step.for_each or (None, 1)
        found = items.evaluate(scope) if items is not None else []
        if not isinstance(found, list):
            raise InvalidInput.at("for_each.items", f"must be a list, not {type(found).__name__}")
        if len(found) > (most := self._submissions.limits.max_items):
            raise InvalidInput.at("for_each.items", f"holds {len(found)}, the limit (workflows.max_items) is {most}")
        self._record(
            claim,
            functools.partial(self._transitions.expand, claim.ref, claim.attempt, found, max_parallel=max_parallel),
        )

    def _begin(self, claim: StepClaim, step: Step, parameters: Parameters) -> None:
        kind = step.type.name
        if kind == "wait":
            wait: Any = parameters
            self._record(
                claim,
                functools.partial(
                    self._transitions.wait, claim.ref, claim.attempt, seconds=wait.seconds, signal=wait.signal
                ),
            )
        elif kind == "workflow":
            self._begin_sub_run(claim, parameters)
        elif (parts := vectors.parts_of(step.type, parameters)) is not None:
            self._send_texts(claim, step, parts, vectors.echo_of(step.type, parameters))
        else:
            self._execute(claim, step, parameters, None)

    def _begin_sub_run(self, claim: StepClaim, parameters: Any) -> None:
        run = sub_run(self._submissions, claim, parameters)

        def transition() -> Effects:
            effects, begun = self._sub_runs.start(claim.ref, claim.attempt, run)
            for ref in begun.ready:
                self._threads.submit(ref.run_id, self.run_step, ref)
            self._threads.submit(run.run_id, self.follow, begun)
            return effects

        self._record(claim, transition)

    def _send_texts(self, claim: StepClaim, step: Step, parts: list[EmbedPart], echo: dict[str, Any] | None) -> None:
        deadline = self.in_flight.awaits_vectors(claim, deadline_of(claim, step))
        message = EmbedStep(
            run_id=str(claim.ref.run_id),
            step_id=claim.ref.step_id,
            item=claim.ref.item,
            attempt=claim.attempt,
            parts=parts,
            echo=echo,
            lane=vectors.lane_of(echo),
            deadline=deadline.to_epoch(),
        )
        self._publisher.embed(message, lane=claim.lane, lost=functools.partial(self._not_sent, claim))

    def _not_sent(self, claim: StepClaim, error: StoreUnavailable) -> None:
        self.in_flight.was_not_sent(claim)
        log.warning("texts_not_sent", run_id=str(claim.ref.run_id), step_id=claim.ref.step_id, error=error.message)

    def _adopt(self, ref: StepRef, message: StepEmbedded) -> None:
        """Executes here a step that waited for vectors, whichever worker had claimed it."""
        token = uuid.uuid4().hex
        claim = self._insistently(functools.partial(self._transitions.adopt, ref, message.attempt, token=token))
        if claim is None:
            return
        self.in_flight.add(claim)

        def act(claim: StepClaim) -> None:
            step, scope = self._read(claim)
            self._execute(claim, step, parameters_of(step, scope), message.parts[0])

        self._guarded(act, claim)

    def _execute(self, claim: StepClaim, step: Step, parameters: Parameters, part: EmbeddedPart | None) -> None:
        call = StepCall(
            run_id=str(claim.ref.run_id),
            step_id=claim.ref.step_id,
            item=None if claim.ref.item == NO_ITEM else claim.ref.item,
            attempt=claim.attempt,
            deadline=deadline_of(claim, step),
            vectors=None if part is None else vectors.vectors_of(part),
        )
        future = self._loop.submit(executed(step, parameters, call), lambda ended: self._on_end(claim, ended))
        self.in_flight.executes(claim, future)

    def _on_end(self, claim: StepClaim, ended: "Future[Any]") -> None:
        """Called in the loop's thread: hands over to one that may wait for PostgreSQL."""
        try:
            self._threads.submit(claim.ref.run_id, self._guarded, functools.partial(self._conclude, ended), claim)
        except RuntimeError:
            log.info("step_ended_too_late", run_id=str(claim.ref.run_id), step_id=claim.ref.step_id)

    def _conclude(self, ended: "Future[Any]", claim: StepClaim) -> None:
        try:
            output = ended.result()
        except (CancelledError, asyncio.CancelledError):
            return  # no longer this worker's, or handed back
        self._record(claim, functools.partial(self._transitions.succeed, claim.ref, claim.attempt, output))

    def _record(self, claim: StepClaim, transition: Callable[[], Effects]) -> None:
        """Records an outcome, however long PostgreSQL is away: it may have cost money."""
        effects = self._insistently(transition)
        self.in_flight.remove(claim)
        self.follow(effects)

    def _insistently(self, transition: Callable[[], T]) -> T:
        pause = FIRST_PAUSE
        while True:
            try:
                return transition()
            except StoreUnavailable:
                if self._stopping.wait(pause):
                    raise
                pause = min(LONGEST_PAUSE, pause * 2)

    def _after_end(self, ended: EndedRun) -> None:
        if ended.reply_to is not None:
            self._later(self._answer, ended)
        if ended.status != "succeeded":
            self._later(self.cancel_children, ended.run_id)
        if ended.concurrency_key is not None:
            self._later(self.release, ended.concurrency_key)
        if ended.parent is not None:
            self._later(self.report, ended.parent, ended.run_id)

    def _later(self, act: Callable[..., None], *arguments: Any) -> None:
        """Does something that the sweep would do too, only later."""

        def guarded() -> None:
            try:
                act(*arguments)
            except CitadelError as error:
                log.warning("left_to_the_sweep", what=getattr(act, "__name__", "answer"), error=error.code)
            except Exception:
                log.exception("after_end_crashed")

        self._threads.submit(object(), guarded)

    def release(self, key: str) -> None:
        """Starts runs that waited for others of their concurrency key to end."""
        for effects in self._commands.release(key):
            self.follow(effects)

    def report(self, parent: ParentStep, run_id: UUID) -> None:
        """Tells the step that waits for a sub-run how that ended."""
        self.follow(self._sub_runs.report(parent, run_id))
