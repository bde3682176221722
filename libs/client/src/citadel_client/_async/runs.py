"""Runs: follow them, command them, read their results."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Unpack

from pydantic import TypeAdapter

from citadel_client._async.connection import AsyncConnection
from citadel_client.decoders import BatchAnswer, EventDecoder, ResultDecoder
from citadel_client.errors import RunFailed
from citadel_client.models import CommandResult, RunFilters
from citadel_client.operations import Operation, dump, get, get_json, path_of, post, query
from citadel_client.options import Polling
from citadel_client.streams import Stream
from citadel_contracts.runs import (
    FINISHED,
    RunEvent,
    RunList,
    RunStatus,
    RunSummary,
    RunView,
    StepOutput,
    StepView,
)

FIRST_POLL_S = 0.03
LEAST_TIMEOUT_S = 1.0
"""Timeout of a call when less time than that is left to wait."""
_EVENTS = TypeAdapter(list[RunEvent])


class AsyncRun:
    """Handle on a run of the server, which goes on without it."""

    def __init__(self, connection: AsyncConnection, run_id: str) -> None:
        self.run_id = run_id
        self._connection = connection

    async def show(self, *, outputs: bool = True) -> RunView:
        """Return status, steps and output; `outputs=False` leaves out the output and the final context.

        An output that is too large for the server's answer is fetched after it. A final context is not: see
        `final_context`.
        """
        view = await self._connection.call(self._view(outputs=outputs))
        if outputs and view.output_url is not None:
            return view.model_copy(update={"output": await self.output()})
        return view

    async def output(self) -> Any:
        """Return the run's output, however large; None before its end."""
        return await self._connection.call(get_json(self._path("output")))

    async def final_context(self) -> dict[str, Any]:
        """Return the context that the run has left, however large.

        Raises:
            Conflict: The run has not ended.
        """
        found: dict[str, Any] = await self._connection.call(get_json(self._path("final_context")))
        return found

    async def wait(self, timeout: float | None = None, *, check: bool = True) -> RunView:
        """Wait for the run's end and return the run.

        Args:
            timeout: Seconds to wait; None for no limit.
            check: Whether to raise an error if the run did not succeed.

        Raises:
            RunFailed: The run failed, timed out or was cancelled.
            CallTimedOut: The run has not ended in time; it goes on.
        """
        polling = Polling(FIRST_POLL_S, timeout)
        while True:
            left = max(LEAST_TIMEOUT_S, min(self._connection.options.timeout, polling.left))
            seen = await self._connection.call(self._view(outputs=False), timeout=left)
            if seen.status in FINISHED:
                break
            await asyncio.sleep(polling.pause(f"run {self.run_id} is {seen.status}"))
        view = await self.show()
        if check and view.status != "succeeded":
            raise RunFailed(view)
        return view

    def events(self, *, after: int = 0, timeout: float | None = None) -> AsyncIterator[RunEvent]:
        """Yield each event once and in order, as it happens, until the run ends; survives lost connections.

        Args:
            after: Number of the last event that the caller has.
            timeout: Seconds for all events; None for no limit.

        Raises:
            CitadelApiError: The server is away for too long, or refuses.
        """
        decoder = EventDecoder(after)
        return self._connection.stream(Stream(self._path("events"), decoder, self._connection.options, timeout=timeout))

    async def history(self, *, after: int = 0) -> AsyncIterator[RunEvent]:
        """Yield the events so far."""
        while found := await self._connection.call(self._events(after)):
            for event in found:
                yield event
            after = found[-1].seq

    def results(self, *, after: int = 0, timeout: float | None = None) -> AsyncIterator[BatchAnswer]:
        """Yield a batch's results, each once and in the order of its requests, as they come; survives lost connections.

        Args:
            after: Number of results that the caller has, which are left out.
            timeout: Seconds for all results; None for no limit.

        Raises:
            InvalidRequest: The run is not a batch.
            CitadelApiError: The server is away for too long, or refuses.
        """
        options, path = self._connection.options, self._path("results") + "?encoding_format=base64"
        # The server is silent while it computes a chunk, so silence is not a sign of a dead connection here.
        stream = Stream(path, ResultDecoder(after), options, timeout=timeout, idle=options.timeout)
        return self._connection.stream(stream)

    async def steps(self) -> list[StepView]:
        """Return the steps with their statuses."""
        return (await self.show(outputs=False)).steps

    async def step(self, step_id: str) -> StepOutput:
        """Return one step with its output, however large."""
        step = await self._connection.call(get(self._path("steps", step_id), StepOutput))
        if step.output_url is None:
            return step
        output = await self._connection.call(get_json(self._path("steps", step_id, "output")))
        return step.model_copy(update={"output": output})

    async def graph(self) -> str:
        """Return the steps and their statuses as a Mermaid graph."""
        operation = Operation(method="GET", path=self._path("graph"), read=lambda response: response.text)
        return await self._connection.call(operation)

    async def cancel(self) -> RunStatus:
        """Cancel the run; its queued steps never start.

        Raises:
            Conflict: The run has ended.
        """
        return await self._command("cancel")

    async def pause(self) -> RunStatus:
        """Let no further step start; steps that run are finished and recorded."""
        return await self._command("pause")

    async def resume(self) -> RunStatus:
        """Resume the run after a pause."""
        return await self._command("resume")

    async def retry(self) -> RunStatus:
        """Run again from where it failed; steps that succeeded are not repeated."""
        return await self._command("retry", repeatable=False)  # a repetition could run twice what failed again

    async def signal(self, name: str, payload: Any = None) -> RunStatus:
        """Send a signal to the run's `wait` steps; the step that takes it has `payload`, any JSON, as its output."""
        # The server counts each signal, so one that it may have received is not sent again.
        return await self._command("signals", name, content=dump({} if payload is None else payload), repeatable=False)

    def _path(self, *below: str) -> str:
        return path_of("runs", self.run_id, *below)

    def _view(self, *, outputs: bool) -> Operation[RunView]:
        return get(self._path() + ("" if outputs else "?outputs=false"), RunView)

    def _events(self, after: int) -> Operation[list[RunEvent]]:
        path = self._path("events") + query({"after": after})
        return Operation(method="GET", path=path, read=lambda response: _EVENTS.validate_json(response.content))

    async def _command(self, *below: str, content: bytes | None = None, repeatable: bool = True) -> RunStatus:
        operation = post(self._path(*below), CommandResult, content, repeatable=repeatable)
        return (await self._connection.call(operation)).status


class AsyncRuns:
    """All runs of a server."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def handle(self, run_id: str) -> AsyncRun:
        """Return a handle on a run, without asking the server for it."""
        return AsyncRun(self._connection, run_id)

    def list(self, *, limit: int | None = None, **filters: Unpack[RunFilters]) -> AsyncIterator[RunSummary]:
        """Yield runs, newest first; pages are fetched when they are needed.

        Args:
            limit: Maximum number of runs; None for all.
            filters: See `RunFilters`.
        """
        labels = [("label", f"{name}:{value}") for name, value in (filters.get("labels") or {}).items()]
        plain = {name: value for name, value in filters.items() if name != "labels"}

        def path(cursor: str | None, size: int) -> str:
            return "/v1/runs" + query(plain | {"cursor": cursor, "limit": size}, *labels)

        return self._connection.pages(RunList, lambda page: page.runs, path, limit)

    async def get(self, run_id: str) -> RunView:
        """Return a run with its status, steps and output."""
        return await self.handle(run_id).show()

    async def steps(self, run_id: str) -> Sequence[StepView]:
        """Return the steps of a run."""
        return await self.handle(run_id).steps()

    async def cancel(self, run_id: str) -> RunStatus:
        """Cancel a run."""
        return await self.handle(run_id).cancel()

    async def pause(self, run_id: str) -> RunStatus:
        """Let no further step of a run start."""
        return await self.handle(run_id).pause()

    async def resume(self, run_id: str) -> RunStatus:
        """Resume a run after a pause."""
        return await self.handle(run_id).resume()

    async def retry(self, run_id: str) -> RunStatus:
        """Run again from where a run failed."""
        return await self.handle(run_id).retry()

    async def signal(self, run_id: str, name: str, payload: Any = None) -> RunStatus:
        """Send a signal to a run's `wait` steps."""
        return await self.handle(run_id).signal(name, payload)
