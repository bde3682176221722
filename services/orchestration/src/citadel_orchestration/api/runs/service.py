"""Runs: submitted, shown, followed, commanded. Each call is a short transaction in a thread."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import orjson
import structlog

from citadel_common.deadline import Deadline
from citadel_common.errors import DeadlineExceeded, NotFound, PayloadTooLarge, StoreUnavailable, from_data
from citadel_common.memory import MemoryBudget
from citadel_common.stores.postgres import Cursor, Database, repeated
from citadel_contracts import Queue
from citadel_contracts.errors import ErrorData
from citadel_contracts.runs import (
    FINISHED,
    RunAccepted,
    RunEvent,
    RunList,
    RunView,
    StepOutput,
)
from citadel_orchestration.api.runs.notifier import RunNotifier
from citadel_orchestration.api.tasks.publisher import BacklogLimit
from citadel_orchestration.db import concurrency_keys, payloads, runs, views
from citadel_orchestration.db.models import Effects, NewRun, StepRef
from citadel_orchestration.definition.definition import Definition
from citadel_orchestration.definition.sizes import SizeLimit
from citadel_orchestration.engine.dispatch import Dispatcher
from citadel_orchestration.engine.run_admission import RunAdmission
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.scope import Reader, context_of, steps_of
from citadel_orchestration.engine.submission import Definitions, Origin, Submissions, new_run_id

if TYPE_CHECKING:
    from celery import Celery

T = TypeVar("T")
Command = Callable[[RunCommands, UUID], Effects]
log = structlog.get_logger(__name__)
MAX_OUTAGE = 45.0
"""Seconds that PostgreSQL may be down before a stream ends."""
RETRY_DELAY = 0.2
DISPATCH_PAUSE = 5.0
"""Seconds without dispatching after the broker has failed: each attempt would take as long as its timeout."""


async def read_through_outage(read: Callable[[], Awaitable[T]]) -> T:
    """Return what `read` returns; retry it while PostgreSQL is down.

    Raises:
        StoreUnavailable: PostgreSQL has been down for `MAX_OUTAGE` seconds.
    """
    end = time.monotonic() + MAX_OUTAGE
    while True:
        try:
            return await read()
        except StoreUnavailable:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(RETRY_DELAY)


def accepted_of(submitted: runs.Submitted) -> RunAccepted:
    """Return the response to a submission."""
    return RunAccepted(run_id=str(submitted.run_id), workflow_id=submitted.workflow_id, status=submitted.status)


class StepDispatcher:
    """Sends ready steps to the workers; the workers' sweep finds what could not be sent. Thread-safe."""

    def __init__(self, app: "Celery") -> None:
        self._dispatcher = Dispatcher(app)
        self._paused_until = 0.0

    def dispatch(self, ready: Sequence[StepRef], lane: int) -> None:
        """Publish the steps, up to the first that cannot be published."""
        if time.monotonic() < self._paused_until:
            return
        for sent, ref in enumerate(ready):
            try:
                self._dispatcher.step_ready(ref, lane=lane)
            except StoreUnavailable as error:
                self._paused_until = time.monotonic() + DISPATCH_PAUSE
                left = len(ready) - sent
                log.warning("steps_not_published", run_id=str(ref.run_id), steps=left, error=error.message)
                return


@dataclass(frozen=True, kw_only=True)
class RunService:
    """Reads runs and changes them; belongs to one event loop.

    Attributes:
        database: Where runs are recorded.
        definitions: Parsed definitions of runs.
        submissions: Checks definitions.
        commands: Changes runs.
        dispatcher: Sends steps that are ready to the workers.
        notifier: Wakes followers of runs.
        memory: Memory for what is read and for what commands evaluate.
        most_inline: Bytes of an output or a final context that stands in an answer.
        admission: Refuses new runs while there are too many.
        queues: Refuses new runs while too many messages wait.
    """

    database: Database
    definitions: Definitions
    submissions: Submissions
    commands: RunCommands
    dispatcher: StepDispatcher
    notifier: RunNotifier
    memory: MemoryBudget
    most_inline: int
    admission: RunAdmission
    queues: BacklogLimit

    async def admit(self, caller: str) -> None:
        """Check that a new run of a caller is taken.

        Raises:
            Overloaded: Too much waits in the queue or in the database.
            StorageFull: Too many bytes are stored.
            StoreUnavailable: PostgreSQL does not answer.
        """
        await self.queues.check_if_known(Queue.ORCHESTRATION)
        await asyncio.to_thread(self.admission.check, caller)

    async def submit(self, raw: Any, caller: str) -> RunAccepted:
        """Check a definition, record a run of it, and start the run.

        Raises:
            InvalidDefinition: The definition is not valid; the error lists all problems.
            Conflict: The idempotency key was used for another submission.
            Overloaded: Too much waits already.
            StorageFull: Too many bytes are stored.
            StoreUnavailable: The run may or may not be recorded; retrying is safe with an idempotency key.
        """
        await self.admit(caller)
        definition = await asyncio.to_thread(self.submissions.check, raw)
        run = self.submissions.run_of(definition, run_id=new_run_id(), origin=Origin(caller=caller))
        return await self.start(run)

    async def start(self, run: NewRun) -> RunAccepted:
        """Record a run and dispatch its first steps.

        Raises:
            Overloaded: Too many runs of its concurrency key have not ended.
        """
        submitted = await asyncio.to_thread(repeated(self._submit), run)
        ready = [StepRef(run_id=submitted.run_id, step_id=step_id) for step_id in submitted.ready]
        await asyncio.to_thread(self.dispatcher.dispatch, ready, run.lane)
        return accepted_of(submitted)

    def _submit(self, run: NewRun) -> runs.Submitted:
        self.admission.check_key(run.concurrency_key)
        return self.commands.submit(run)

    async def run_to_end(self, run: NewRun, deadline: Deadline) -> Any:
        """Record a run, wait for its end and return its output.

        Raises:
            DeadlineExceeded: The run has not ended by the deadline; it is cancelled.
            CitadelError: The run failed.
        """
        await self.start(run)
        try:
            async with asyncio.timeout(max(0.0, deadline.remaining)):
                outcome = await self._end_of(run.run_id)
        except TimeoutError:
            await self.command(RunCommands.cancel, run.run_id)
            raise DeadlineExceeded from None
        if outcome.status != "succeeded":
            raise from_data(ErrorData.model_validate({"message": outcome.status} | (outcome.error or {})))
        return None if outcome.output is None else orjson.loads(outcome.output)

    async def _end_of(self, run_id: UUID) -> runs.RunOutcome:
        async for _ in self.notifier.follow(run_id, until_shutdown=False):
            outcome = await self._read(lambda cursor: runs.outcome_of(cursor, run_id))
            if outcome.status in FINISHED:
                return outcome
        raise AssertionError("the notifier never ends by itself")

    async def show(self, run_id: UUID, *, outputs: bool = True) -> RunView:
        """Return one run with its steps.

        Raises:
            NotFound: There is no such run.
        """
        return await self._read(lambda cursor: self._show(cursor, run_id, outputs=outputs))

    async def step(self, run_id: UUID, step_id: str) -> StepOutput:
        """Return one step with its output.

        Raises:
            NotFound: There is no such run, or it has no such step.
        """
        return await self._read(lambda cursor: self._step(cursor, run_id, step_id))

    async def page(self, filters: views.Filters) -> RunList:
        """Return a page of runs."""
        return await self._read(lambda cursor: views.list_runs(cursor, filters))

    async def definition(self, run_id: UUID) -> Definition:
        """Return the definition of a run.

        Raises:
            NotFound: There is no such run.
        """
        return await self._read(lambda cursor: self.definitions.get(run_id, cursor))

    async def status(self, run_id: UUID) -> str:
        """Return the run's status.

        Raises:
            NotFound: There is no such run.
        """
        return (await self._read(lambda cursor: views.summary_of(cursor, run_id))).status

    async def events(self, run_id: UUID, seq: int) -> list[RunEvent]:
        """Return the next events after number `seq`."""
        return await self._read(lambda cursor: views.events_after(cursor, run_id, seq))

    async def follow(self, run_id: UUID, seq: int) -> AsyncIterator[list[RunEvent]]:
        """Yield events after number `seq` until the run has ended; an empty list shows that the stream is alive.

        Raises:
            NotFound: The run was removed.
            StoreUnavailable: PostgreSQL has been down for too long.
            Stopping: The server shuts down.
        """
        async for _ in self.notifier.follow(run_id):
            # The status is read before the events: those of a run that has ended are complete.
            ended = await read_through_outage(lambda: self.status(run_id)) in FINISHED
            while found := await read_through_outage(functools.partial(self.events, run_id, seq)):
                seq = found[-1].seq
                yield found
            if ended:
                return
            yield []

    async def command(self, command: Command, run_id: UUID) -> None:
        """Apply a command, such as `RunCommands.cancel`, to a run.

        Raises:
            NotFound: There is no such run.
            Conflict: The run's status does not allow the command.
        """
        act = functools.partial(repeated(command), self.commands, run_id)
        effects = await asyncio.to_thread(self.memory.run, act)
        await asyncio.to_thread(self._dispatch, effects)

    def _dispatch(self, effects: Effects) -> None:
        """Dispatch the steps that became ready: the API executes none itself."""
        self.dispatcher.dispatch(effects.ready, effects.lane)
        if effects.ended is not None and effects.ended.status != "succeeded":
            for cancelled in self.commands.cancel_children(effects.ended.run_id):
                self._dispatch(cancelled)
        if effects.freed_key is not None:
            for released in self.commands.release(effects.freed_key):
                self._dispatch(released)

    async def _read(self, read: Callable[[Cursor], T]) -> T:
        def call() -> T:
            with self.database.cursor() as cursor:
                return read(cursor)

        return await asyncio.to_thread(self.memory.run, call)

    def _show(self, cursor: Cursor, run_id: UUID, *, outputs: bool) -> RunView:
        summary = views.summary_of(cursor, run_id)
        definition = self.definitions.get(run_id, cursor)
        steps = views.steps_view(cursor, summary, definition)
        size, output, parent = views.output_and_parent(cursor, run_id, most=self.most_inline if outputs else 0)
        large = size is not None and size > self.most_inline
        whole = outputs and summary.status in FINISHED and summary.kind != "batch"
        context = self._final_context(cursor, run_id) if whole else None
        return RunView(
            **summary.model_dump(),
            parent_run_id=parent,
            waiting_for=concurrency_keys.place_of(cursor, run_id) if summary.status == "queued" else None,
            steps=steps,
            output=orjson.loads(output) if outputs and output is not None else None,
            output_bytes=size,
            output_url=f"/v1/runs/{run_id}/output" if large else None,
            final_context=context,
            final_context_url=f"/v1/runs/{run_id}/final_context" if whole and context is None else None,
        )

    def _final_context(self, cursor: Cursor, run_id: UUID) -> dict[str, Any] | None:
        """Return the context that a run leaves; None if it is too large for an answer."""
        try:
            return context_of(Reader(cursor, self._inline), run_id)
        except PayloadTooLarge:
            return None

    @property
    def _inline(self) -> SizeLimit:
        return SizeLimit(bytes=self.most_inline, setting="api.max_inline_bytes")

    def _known_step(self, cursor: Cursor, run_id: UUID, step_id: str) -> Definition:
        definition = self.definitions.get(run_id, cursor)
        if step_id not in definition.steps:
            raise NotFound(f"the run has no step {step_id!r}")
        return definition

    def _step(self, cursor: Cursor, run_id: UUID, step_id: str) -> StepOutput:
        summary = views.summary_of(cursor, run_id)
        definition = self._known_step(cursor, run_id, step_id)
        found = views.steps_view(cursor, summary, definition, step_id)
        if summary.kind == "batch":  # all vectors would not fit into memory; /results streams them
            return StepOutput(**found[0].model_dump())
        [(_, _, _, size)] = payloads.states_and_sizes(cursor, run_id, [step_id])
        if size > self.most_inline:
            url = f"/v1/runs/{run_id}/steps/{step_id}/output"
            return StepOutput(**found[0].model_dump(), output_bytes=size, output_url=url)
        output = steps_of(Reader(cursor), run_id, [step_id])[step_id]["output"]
        return StepOutput(**found[0].model_dump(), output=output, output_bytes=size)
