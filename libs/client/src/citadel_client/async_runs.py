"""Runs on the server, awaited; `runs` documents arguments, results and errors."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar, Unpack

from citadel_client import run_calls, run_flows
from citadel_client.decoders import BatchAnswer
from citadel_client.drivers import AsyncDriver
from citadel_client.flow import Call, Terms, exchange
from citadel_client.run_calls import PAGE, RunFilters
from citadel_contracts.runs import RunEvent, RunStatus, RunSummary, RunView, StepOutput, StepView

T = TypeVar("T")


class AsyncRun:
    """A run on the server; it goes on whatever becomes of this handle."""

    def __init__(self, driver: AsyncDriver, run_id: str, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms
        self.run_id = run_id

    async def _call(self, call: Call[T]) -> T:
        return await self._driver.run(exchange(call, self._terms))

    async def show(self, *, outputs: bool = True) -> RunView:
        """State, steps, output; `outputs=False` leaves out what may be large."""
        return await self._call(run_calls.show(self.run_id, outputs=outputs))

    async def wait(self, timeout: float | None = None, *, check: bool = True) -> RunView:
        """The run, as soon as it has ended."""
        return await self._driver.run(run_flows.ended(self.run_id, self._terms, timeout, check=check))

    def events(self, *, after: int = 0, timeout: float | None = None) -> AsyncIterator[RunEvent]:
        """Each event once and in order, as it happens, until the run ends; survives lost connections."""
        return self._driver.items(run_flows.events(self.run_id, after, timeout, self._terms))

    async def history(self, *, after: int = 0) -> AsyncIterator[RunEvent]:
        """The events so far."""
        while found := await self._call(run_calls.events_after(self.run_id, after)):
            for event in found:
                yield event
            after = found[-1].seq

    def results(self, *, after: int = 0, timeout: float | None = None) -> AsyncIterator[BatchAnswer]:
        """Results of a batch, each once and in the order of its requests, as they come; survives lost connections."""
        return self._driver.items(run_flows.results(self.run_id, after, timeout, self._terms))

    async def steps(self) -> list[StepView]:
        """The steps and how they do."""
        return (await self.show(outputs=False)).steps

    async def step(self, step_id: str) -> StepOutput:
        """One step with its output."""
        return await self._call(run_calls.step(self.run_id, step_id))

    async def graph(self) -> str:
        """The steps and their states as a Mermaid graph."""
        return await self._call(run_calls.graph(self.run_id))

    async def cancel(self) -> RunStatus:
        """End it; its queued steps never start."""
        return (await self._call(run_calls.steer(self.run_id, "cancel"))).status

    async def pause(self) -> RunStatus:
        """Let nothing new start; what runs is finished and recorded."""
        return (await self._call(run_calls.steer(self.run_id, "pause"))).status

    async def resume(self) -> RunStatus:
        """Go on after a pause."""
        return (await self._call(run_calls.steer(self.run_id, "resume"))).status

    async def retry(self) -> RunStatus:
        """Run again from where it failed: what succeeded is not repeated."""
        return (await self._call(run_calls.steer(self.run_id, "retry"))).status

    async def signal(self, name: str, payload: Any = None) -> RunStatus:
        """Send a signal to its `wait` steps; `payload`, any JSON, is the output of the one that takes it."""
        return (await self._call(run_calls.signal(self.run_id, name, {} if payload is None else payload))).status


class AsyncRuns:
    """All runs of a server."""

    def __init__(self, driver: AsyncDriver, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms

    def handle(self, run_id: str) -> AsyncRun:
        """A handle on a run, without asking the server for it."""
        return AsyncRun(self._driver, run_id, self._terms)

    async def list(self, *, limit: int | None = None, **filters: Unpack[RunFilters]) -> AsyncIterator[RunSummary]:
        """Runs, newest first; pages are fetched as they are needed."""
        cursor, left = None, limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self._driver.run(exchange(run_calls.page(cursor, size, filters), self._terms))
            for run in page.runs:
                yield run
            cursor, left = page.next_cursor, None if left is None else left - len(page.runs)
            if cursor is None:
                return

    async def get(self, run_id: str) -> RunView:
        """State, steps, output."""
        return await self.handle(run_id).show()

    async def steps(self, run_id: str) -> Sequence[StepView]:
        """The steps of a run."""
        return await self.handle(run_id).steps()

    async def cancel(self, run_id: str) -> RunStatus:
        """End a run."""
        return await self.handle(run_id).cancel()

    async def pause(self, run_id: str) -> RunStatus:
        """Let nothing new start."""
        return await self.handle(run_id).pause()

    async def resume(self, run_id: str) -> RunStatus:
        """Go on after a pause."""
        return await self.handle(run_id).resume()

    async def retry(self, run_id: str) -> RunStatus:
        """Run again from where it failed."""
        return await self.handle(run_id).retry()

    async def signal(self, run_id: str, name: str, payload: Any = None) -> RunStatus:
        """Send a signal."""
        return await self.handle(run_id).signal(name, payload)
