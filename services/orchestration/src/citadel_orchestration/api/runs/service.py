"""Runs for the routes: each call is a short transaction in a thread."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import orjson

from citadel_common.deadline import Deadline
from citadel_common.errors import DeadlineExceeded, NotFound, StoreUnavailable, from_data
from citadel_common.stores.postgres import Cursor, Database
from citadel_contracts.errors import ErrorData
from citadel_contracts.runs import (
    FINISHED,
    RunAccepted,
    RunEvent,
    RunList,
    RunView,
    StepOutput,
)
from citadel_orchestration.api.runs.dispatcher import Teller
from citadel_orchestration.api.runs.notifier import RunNews
from citadel_orchestration.db import runs, views
from citadel_orchestration.db.models import Effects, NewRun, StepRef
from citadel_orchestration.engine.definitions import Definitions
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.scope import context_of, steps_of
from citadel_orchestration.engine.submission import Submissions, new_run_id

T = TypeVar("T")
PATIENCE = 45.0
"""Seconds a follower outlasts an outage of PostgreSQL."""
PAUSE = 0.2


async def patiently(read: Callable[[], Awaitable[T]]) -> T:
    """What `read` gives, once PostgreSQL answers again.

    Raises:
        StoreUnavailable: It has not for `PATIENCE` seconds.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return await read()
        except StoreUnavailable:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(PAUSE)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What the run routes work with; belongs to one event loop."""

    database: Database
    definitions: Definitions
    submissions: Submissions
    commands: RunCommands
    teller: Teller
    news: RunNews

    async def submit(self, raw: Any) -> RunAccepted:
        """Records a workflow's run and has it begun.

        Raises:
            InvalidDefinition: With everything that is wrong.
            Conflict: Its idempotency key was used for something else.
            StoreUnavailable: It may not have been recorded; the same idempotency key makes trying again safe.
        """
        definition = await asyncio.to_thread(self.submissions.check, raw)
        return await self.record(self.submissions.run_of(definition, run_id=new_run_id()))

    async def record(self, run: NewRun) -> RunAccepted:
        """Records a run and has it begun."""
        submitted = await asyncio.to_thread(self.commands.submit, run)
        await asyncio.to_thread(self._publish, submitted, run.lane)
        return RunAccepted(run_id=str(submitted.run_id), workflow_id=submitted.workflow_id, status=submitted.status)

    async def run_to_end(self, run: NewRun, deadline: Deadline) -> Any:
        """The output of a run that somebody waits for.

        Raises:
            DeadlineExceeded: It has not ended by then; it is cancelled.
            CitadelError: It failed.
        """
        accepted = await self.record(run)
        run_id = UUID(accepted.run_id)
        try:
            async with asyncio.timeout(max(0.0, deadline.remaining)):
                status, output, error = await self._end_of(run_id)
        except TimeoutError:
            await self.steer("cancel", run_id)
            raise DeadlineExceeded from None
        if status != "succeeded":
            raise from_data(ErrorData.model_validate({"message": status} | (error or {})))
        return output

    async def _end_of(self, run_id: UUID) -> tuple[str, Any, dict[str, Any] | None]:
        async for _ in self.news.follow(run_id, to_the_end=True):
            outcome = await self._outcome(run_id)
            if outcome[0] in FINISHED:
                return outcome
        raise AssertionError("news never end")

    async def show(self, run_id: UUID, *, outputs: bool = True) -> RunView:
        """One run with its steps.

        Raises:
            NotFound: There is no such run.
        """
        return await self._read(functools.partial(self._show, run_id=run_id, outputs=outputs))

    async def step(self, run_id: UUID, step_id: str) -> StepOutput:
        """One step with its output.

        Raises:
            NotFound: There is no such run, or no such step.
        """
        return await self._read(functools.partial(self._step, run_id=run_id, step_id=step_id))

    async def page(self, filters: views.Filters) -> RunList:
        """A page of runs."""
        return await self._read(lambda cursor: views.list_runs(cursor, filters))

    async def definition(self, run_id: UUID) -> dict[str, Any]:
        """The definition of a run, as submitted but for its context.

        Raises:
            NotFound: There is no such run.
        """
        return dict(orjson.loads(await self._read(lambda cursor: runs.definition_of(cursor, run_id))))

    async def exists(self, run_id: UUID) -> str:
        """The run's state.

        Raises:
            NotFound: There is no such run.
        """
        return (await self._read(lambda cursor: views.summary_of(cursor, run_id))).status

    async def events(self, run_id: UUID, seq: int) -> list[RunEvent]:
        """The next events after number `seq`."""
        return await self._read(lambda cursor: views.events_after(cursor, run_id, seq))

    async def follow(self, run_id: UUID, seq: int) -> AsyncIterator[list[RunEvent]]:
        """Events after number `seq`, as they come; ends with the run. An empty list is a sign of life.

        Raises:
            NotFound: The run was removed.
            StoreUnavailable: PostgreSQL has not answered for long.
            Stopping: The server stops.
        """
        async for _ in self.news.follow(run_id):
            ended = await patiently(lambda: self.exists(run_id)) in FINISHED
            while found := await patiently(functools.partial(self.events, run_id, seq)):
                seq = found[-1].seq
                yield found
            if ended:
                return
            yield []

    async def steer(self, action: str, run_id: UUID, *arguments: Any, **options: Any) -> None:
        """One of the commands cancel, pause, resume, signal, retry.

        Raises:
            NotFound: There is no such run.
            Conflict: Its state does not allow that.
        """
        command: Callable[..., Effects] = getattr(self.commands, action)
        effects = await asyncio.to_thread(functools.partial(command, run_id, *arguments, **options))
        await asyncio.to_thread(self._hand_over, effects)

    def _hand_over(self, effects: Effects) -> None:
        """The API executes nothing: what a transition claimed goes to the workers, through the record."""
        self.teller.tell(effects.ready, effects.lane)
        if effects.ended is not None and effects.ended.status != "succeeded":
            for cancelled in self.commands.cancel_children(effects.ended.run_id):
                self._hand_over(cancelled)

    def _publish(self, submitted: runs.Submitted, lane: int) -> None:
        self.teller.tell([StepRef(run_id=submitted.run_id, step_id=step_id) for step_id in submitted.ready], lane)

    async def _outcome(self, run_id: UUID) -> tuple[str, Any, dict[str, Any] | None]:
        def read(cursor: Cursor) -> tuple[str, Any, dict[str, Any] | None]:
            found = runs.outcome_of(cursor, run_id)
            return found.status, None if found.output is None else orjson.loads(found.output), found.error

        return await self._read(read)

    async def _read(self, read: Callable[[Cursor], T]) -> T:
        def call() -> T:
            with self.database.cursor() as cursor:
                return read(cursor)

        return await asyncio.to_thread(call)

    def _show(self, cursor: Cursor, run_id: UUID, *, outputs: bool) -> RunView:
        summary = views.summary_of(cursor, run_id)
        definition = self.definitions.get(run_id, cursor)
        steps = views.steps_view(cursor, run_id, definition)
        output, parent = views.output_and_parent(cursor, run_id)
        whole = outputs and summary.status in FINISHED and summary.kind != "batch"
        return RunView(
            **summary.model_dump(),
            parent_run_id=parent,
            steps=steps,
            output=orjson.loads(output) if outputs and output is not None else None,
            final_context=context_of(cursor, run_id) if whole else None,
        )

    def _step(self, cursor: Cursor, run_id: UUID, step_id: str) -> StepOutput:
        summary = views.summary_of(cursor, run_id)
        definition = self.definitions.get(run_id, cursor)
        if step_id not in definition.steps:
            raise NotFound(f"the run has no step {step_id!r}")
        found = views.steps_view(cursor, run_id, definition, step_id)
        if summary.kind == "batch":  # all vectors at once would not fit into memory; they stream from /results
            return StepOutput(**found[0].model_dump())
        output = steps_of(cursor, run_id, [step_id])[step_id]["output"]
        return StepOutput(**found[0].model_dump(), output=output)
