"""The engine of one worker: carries out what committed transitions ask for."""

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from citadel_common.deadline import Deadline
from citadel_common.errors import CitadelError, StoreUnavailable
from citadel_common.loop_thread import LoopThread
from citadel_common.memory import HeldMemory, MemoryBudget
from citadel_common.stores.postgres import Database
from citadel_orchestration.db import lost_work
from citadel_orchestration.db.admission import Slots
from citadel_orchestration.db.models import Effects, EndedRun, ParentStep, StepClaim, StepRef
from citadel_orchestration.engine.admission import Admission
from citadel_orchestration.engine.dispatch import Dispatcher
from citadel_orchestration.engine.executor import Executor
from citadel_orchestration.engine.fair_threads import FairThreadPool
from citadel_orchestration.engine.in_flight import StepsInFlight
from citadel_orchestration.engine.outcomes import Outcomes
from citadel_orchestration.engine.parked_outputs import ParkedOutputs
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.sent_texts import SentTexts
from citadel_orchestration.engine.step_inputs import StepInputs
from citadel_orchestration.engine.step_transitions import StepTransitions
from citadel_orchestration.engine.sub_runs import SubRuns
from citadel_orchestration.engine.submission import Definitions, Submissions
from citadel_orchestration.step_types import Resource

log = structlog.get_logger(__name__)
THREADS = 8
"""Transitions at once; expressions and statements, never calls to LLMs."""
PER_RUN = 4
"""Those of one run: its steps begin side by side, and leave room for other runs."""


@dataclass(frozen=True, kw_only=True)
class EngineParts:
    """The parts of an engine.

    Attributes:
        database: Where runs are read.
        transitions: Record what happens to steps.
        sub_runs: Starts sub-runs and reports their ends.
        commands: Changes whole runs.
        definitions: Parsed definitions by run.
        submissions: Check the definitions of sub-runs.
        loop: Runs the coroutines of steps.
        dispatcher: Sends texts to the embeddings workers.
        slots: Of the resources that steps use.
        resources: Those that are known.
        answer: Stores the Celery results of a run that has ended.
        parked: Outputs that no worker could record yet.
        texts: What was sent to the embeddings workers.
        inputs: Reads what steps need; by default within the default limits.
        memory: Bytes of memory that values may take at once.
    """

    database: Database
    transitions: StepTransitions
    sub_runs: SubRuns
    commands: RunCommands
    definitions: Definitions
    submissions: Submissions
    loop: LoopThread
    dispatcher: Dispatcher
    slots: Slots
    resources: Sequence[Resource]
    answer: Callable[[EndedRun], None]
    parked: ParkedOutputs
    texts: SentTexts
    inputs: StepInputs | None = None
    memory: int = 160 * 2**20


class Engine:
    """Runs the steps of one worker; thread-safe. No method waits in the caller's thread for a step to end.

    Args:
        parts: What it works with.
        max_in_flight: Steps executing at once.
        stopping: Set when the worker is to end: no further step begins.
    """

    def __init__(self, parts: EngineParts, *, max_in_flight: int, stopping: threading.Event) -> None:
        self.in_flight = StepsInFlight()
        self.texts = parts.texts
        self._database = parts.database
        self._transitions = parts.transitions
        self._sub_runs = parts.sub_runs
        self._commands = parts.commands
        self._answer = parts.answer
        self._max_in_flight = max_in_flight
        self._stopping = stopping
        self._here = threading.local()
        self._threads = FairThreadPool(THREADS, per_key=PER_RUN, name="transitions")
        executing = parts.memory // 8
        self._memory = MemoryBudget(parts.memory - executing, setting="workflows.memory")
        self._parked = parts.parked
        self._outcomes = Outcomes(
            self.in_flight,
            self.follow,
            self._threads,
            parts.parked,
            late=lambda claim: parts.transitions.late("step", claim.ref, claim.attempt),
        )
        self.admission = Admission(parts.slots, self, parts.resources)
        self._executor = Executor(
            inputs=parts.inputs or StepInputs(database=parts.database, definitions=parts.definitions),
            transitions=parts.transitions,
            sub_runs=parts.sub_runs,
            submissions=parts.submissions,
            dispatcher=parts.dispatcher,
            loop=parts.loop,
            threads=self._threads,
            in_flight=self.in_flight,
            outcomes=self._outcomes,
            stopping=stopping,
            memory=self._memory,
            executing=HeldMemory(executing),
            admission=self.admission,
            follow=self.follow,
        )
        self.take_answer = self._executor.take_answer

    @property
    def room(self) -> int:
        """How many more steps may execute here."""
        return 0 if self._stopping.is_set() else max(0, self._max_in_flight - self.in_flight.executing())

    def run_step(self, ref: StepRef) -> None:
        """Claim and start a step that is ready; a duplicate does nothing."""
        if self.room:
            self.follow(self._transitions.start(ref))

    def admit(self, ref: StepRef, attempt: int, resource: str) -> Effects:
        """Claim a step that waits for a slot of a resource; this worker holds the slot."""
        return self._transitions.admit(ref, attempt, resource)

    def is_in_flight(self, ref: StepRef, attempt: int) -> bool:
        """Return True while a step is this worker's."""
        return self.in_flight.holds(ref, attempt)

    def serve_queues(self) -> None:
        """Take steps out of the queues of resources that have free slots, or slots of steps that were lost."""
        for ref, attempt in self.admission.granted():
            self._threads.submit(ref.run_id, self.admission.settle, ref, attempt)
        for resource in self.admission.servable():
            self._threads.submit(resource, self.admission.admit, resource)

    def follow(self, effects: Effects) -> None:
        """Do what a committed transition asks for: start the first claimed step in this thread, others beside it."""
        if effects.ended is not None:
            self._after_end(effects.ended)
        if effects.freed_key is not None:
            self._later(self.release, effects.freed_key)
        for orphan in effects.orphans:
            self._later(self._cancel_orphan, orphan)
        for ref in effects.ready:
            self._threads.submit(ref.run_id, self.run_step, ref)
        for claim in effects.claims:
            self.in_flight.add(claim)
        for claim in effects.claims[1:]:
            self.resend(claim)
        if effects.claims:
            self._start_here(effects.claims[0])

    def _start_here(self, claim: StepClaim) -> None:
        """Start a step in this thread.

        A step that ends at once claims the next one while it is still being started: the next one waits in a queue
        until this thread is back here, so that long chains of steps do not nest.
        """
        waiting: deque[StepClaim] | None = getattr(self._here, "waiting", None)
        if waiting is not None:
            waiting.append(claim)
            return
        self._here.waiting = waiting = deque([claim])
        try:
            while waiting:
                self._executor.start(waiting.popleft())
        finally:
            self._here.waiting = None

    def resend(self, claim: StepClaim) -> None:
        """Start a claimed step in another thread, or again: then its texts are sent again."""
        self._threads.submit(claim.ref.run_id, self._executor.start, claim)

    def await_vectors(self, claim: StepClaim, deadline: Deadline) -> None:
        """Wait for the vectors of a step whose texts another worker has sent."""
        self.in_flight.add(claim)
        self.in_flight.awaits_vectors(claim, deadline)

    def cancel_children(self, run_id: UUID) -> None:
        """Cancel the sub-runs of a run that ended."""
        for effects in self._commands.cancel_children(run_id):
            self.follow(effects)

    def _cancel_orphan(self, run_id: UUID) -> None:
        self.follow(self._commands.cancel_orphan(run_id))

    def restore_outputs(self) -> None:
        """Record the outputs that workers could not record before they ended.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """

        def record(ref: StepRef, attempt: int, output: Any) -> None:
            effects = self._transitions.succeed(ref, attempt, output)
            if not effects.applied:
                self._transitions.late("parked", ref, attempt)
            self.follow(effects)

        self._parked.restore(record)

    def park_outputs(self) -> None:
        """Park the outputs that are not recorded yet: the worker ends."""
        self._outcomes.close()

    def hand_back(self) -> None:
        """Give all claimed steps back, for other workers to take; vectors on their way come to one of those."""
        self.park_outputs()
        claims, handed_back = self.in_flight.claims(), 0
        kept = set(self.texts.on_the_way([(claim.ref, claim.attempt) for claim in self.in_flight.waiting()]))
        try:
            with self._database.cursor() as cursor:
                waiting = [claim for claim in claims if (claim.ref, claim.attempt) in kept]
                lost_work.end_leases(cursor, waiting, owner=self._transitions.owner)
            handed_back = len(waiting)
            for claim in claims:
                if (claim.ref, claim.attempt) in kept:
                    continue
                self._transitions.hand_back(claim.ref, claim.attempt)
                handed_back += 1
        except StoreUnavailable as error:  # their leases run out
            log.warning("steps_not_handed_back", steps=len(claims) - handed_back, error=error.message)
        self.in_flight.drop(claims)

    def close(self) -> None:
        """End the threads."""
        self._threads.close(finish=False)

    def _after_end(self, ended: EndedRun) -> None:
        if ended.reply_to is not None:
            self._later(self._memory.run, functools.partial(self._answer, ended))
        if ended.status != "succeeded":
            self._later(self.cancel_children, ended.run_id)
        if ended.parent is not None:
            self._later(self.report, ended.parent, ended.run_id)

    def _later(self, act: Callable[..., None], *arguments: Any) -> None:
        """Do something in another thread; should it fail, the sweep does it later."""

        def guarded() -> None:
            try:
                act(*arguments)
            except CitadelError as error:
                log.warning("left_to_the_sweep", what=getattr(act, "__name__", "answer"), error=error.code)
            except Exception:
                log.exception("after_end_crashed")

        self._threads.submit(object(), guarded)

    def release(self, key: str) -> None:
        """Start the runs in line for a concurrency key that may start, as many as may execute here."""
        while self.room and (released := self._commands.release(key, most=1)):
            self.follow(released[0])

    def report(self, parent: ParentStep, run_id: UUID) -> None:
        """Tell the step that waits for a sub-run how that ended."""
        self.follow(self._memory.run(functools.partial(self._sub_runs.report, parent, run_id)))
