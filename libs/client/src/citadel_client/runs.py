"""Runs on the server: follow them, steer them, read what they made."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, Unpack

from citadel_client import run_calls, run_flows
from citadel_client.decoders import BatchAnswer
from citadel_client.drivers import SyncDriver
from citadel_client.flow import Call, Terms, exchange
from citadel_client.run_calls import PAGE, RunFilters
from citadel_contracts.runs import RunEvent, RunStatus, RunSummary, RunView, StepOutput, StepView

T = TypeVar("T")


class Run:
    """A run on the server; it goes on whatever becomes of this handle."""

    def __init__(self, driver: SyncDriver, run_id: str, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms
        self.run_id = run_id

    def _call(self, call: Call[T]) -> T:
        return self._driver.run(exchange(call, self._terms))

    def show(self, *, outputs: bool = True) -> RunView:
        """State, steps, output; `outputs=False` leaves out what may be large."""
        return self._call(run_calls.show(self.run_id, outputs=outputs))

    def wait(self, timeout: float | None = None, *, check: bool = True) -> RunView:
        """The run, as soon as it has ended.

        Args:
            timeout: Seconds; None waits for as long as it takes.
            check: Whether a run that did not succeed is an error.

        Raises:
            RunFailed: It failed, timed out or was cancelled.
            CallTimedOut: It has not ended in time; it goes on.
        """
        return self._driver.run(run_flows.ended(self.run_id, self._terms, timeout, check=check))

    def events(self, *, after: int = 0, timeout: float | None = None) -> Iterator[RunEvent]:
        """Each event once and in order, as it happens, until the run ends; survives lost connections.

        Args:
            after: Number of the last event that is known already.
            timeout: Seconds for all of them; None follows for as long as it takes.

        Raises:
            CitadelApiError: The server is away for too long, or refuses.
        """
        return self._driver.items(run_flows.events(self.run_id, after, timeout, self._terms))

    def history(self, *, after: int = 0) -> Iterator[RunEvent]:
        """The events so far."""
        while found := self._call(run_calls.events_after(self.run_id, after)):
            yield from found
            after = found[-1].seq

    def results(self, *, after: int = 0, timeout: float | None = None) -> Iterator[BatchAnswer]:
        """Results of a batch, each once and in the order of its requests, as they come; survives lost connections.

        Args:
            after: How many results are known already, and left out.
            timeout: Seconds for all of them; None for as long as it takes.

        Raises:
            InvalidRequest: The run is no batch.
            CitadelApiError: The server is away for too long, or refuses.
        """
        return self._driver.items(run_flows.results(self.run_id, after, timeout, self._terms))

    def steps(self) -> list[StepView]:
        """The steps and how they do."""
        return self.show(outputs=False).steps

    def step(self, step_id: str) -> StepOutput:
        """One step with its output."""
        return self._call(run_calls.step(self.run_id, step_id))

    def graph(self) -> str:
        """The steps and their states as a Mermaid graph."""
        return self._call(run_calls.graph(self.run_id))

    def cancel(self) -> RunStatus:
        """End it; its queued steps never start.

        Raises:
            Conflict: It has ended.
        """
        return self._call(run_calls.steer(self.run_id, "cancel")).status

    def pause(self) -> RunStatus:
        """Let nothing new start; what runs is finished and recorded."""
        return self._call(run_calls.steer(self.run_id, "pause")).status

    def resume(self) -> RunStatus:
        """Go on after a pause."""
        return self._call(run_calls.steer(self.run_id, "resume")).status

    def retry(self) -> RunStatus:
        """Run again from where it failed: what succeeded is not repeated."""
        return self._call(run_calls.steer(self.run_id, "retry")).status

    def signal(self, name: str, payload: Any = None) -> RunStatus:
        """Send a signal to its `wait` steps; `payload`, any JSON, is the output of the one that takes it."""
        return self._call(run_calls.signal(self.run_id, name, {} if payload is None else payload)).status


class Runs:
    """All runs of a server."""

    def __init__(self, driver: SyncDriver, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms

    def handle(self, run_id: str) -> Run:
        """A handle on a run, without asking the server for it."""
        return Run(self._driver, run_id, self._terms)

    def list(self, *, limit: int | None = None, **filters: Unpack[RunFilters]) -> Iterator[RunSummary]:
        """Runs, newest first; pages are fetched as they are needed.

        Args:
            limit: How many at most; None for all.
            filters: See `RunFilters`.
        """
        cursor, left = None, limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = self._driver.run(exchange(run_calls.page(cursor, size, filters), self._terms))
            yield from page.runs
            cursor, left = page.next_cursor, None if left is None else left - len(page.runs)
            if cursor is None:
                return

    def get(self, run_id: str) -> RunView:
        """State, steps, output."""
        return self.handle(run_id).show()

    def steps(self, run_id: str) -> Sequence[StepView]:
        """The steps of a run."""
        return self.handle(run_id).steps()

    def cancel(self, run_id: str) -> RunStatus:
        """End a run."""
        return self.handle(run_id).cancel()

    def pause(self, run_id: str) -> RunStatus:
        """Let nothing new start."""
        return self.handle(run_id).pause()

    def resume(self, run_id: str) -> RunStatus:
        """Go on after a pause."""
        return self.handle(run_id).resume()

    def retry(self, run_id: str) -> RunStatus:
        """Run again from where it failed."""
        return self.handle(run_id).retry()

    def signal(self, run_id: str, name: str, payload: Any = None) -> RunStatus:
        """Send a signal."""
        return self.handle(run_id).signal(name, payload)
