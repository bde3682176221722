"""Tasks that were accepted: ask how they do, wait for what they return."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from citadel_client import calls
from citadel_client.drivers import AsyncDriver, SyncDriver
from citadel_client.errors import CallTimedOut, TaskFailed, UnexpectedReply, facts_of
from citadel_client.flow import Call, Flow, Pause, Terms, exchange
from citadel_contracts.api import TaskAccepted, TaskStatus

T = TypeVar("T")
FIRST_POLL_S = 0.05
LAST_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Ticket(Generic[T]):
    """A task that was accepted, and how its result is read."""

    task_id: str
    read: Callable[[dict[str, Any]], T]

    def outcome(self, status: TaskStatus) -> T | None:
        """What the task returned; None while it runs.

        Raises:
            TaskFailed: It failed or was revoked.
        """
        if status.status in {"failed", "revoked"}:
            failure = status.error
            message = failure.message if failure else f"the task was {status.status}"
            raise TaskFailed(message, **({"code": status.status} if failure is None else facts_of(failure)))
        if status.status != "succeeded":
            return None
        try:
            return self.read(status.result or {})
        except ValidationError as error:
            raise UnexpectedReply(f"task {self.task_id} returned something else than expected") from error


def submitted(call: Call[TaskAccepted], read: Callable[[dict[str, Any]], T], terms: Terms) -> Flow[Ticket[T]]:
    """Have the task accepted."""
    accepted = yield from exchange(call, terms)
    return Ticket(task_id=accepted.task_id, read=read)


def finished(ticket: Ticket[T], terms: Terms, timeout: float | None) -> Flow[T]:
    """Look again and again until the task has ended."""
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    pause = FIRST_POLL_S
    while True:
        status = yield from exchange(calls.task(ticket.task_id), terms)
        found = ticket.outcome(status)
        if found is not None:
            return found
        if time.monotonic() + pause >= deadline:
            raise CallTimedOut(f"task {ticket.task_id} did not end within {timeout:g} s; it goes on")
        yield Pause(seconds=pause)
        pause = min(pause * 1.5, LAST_POLL_S)


class TaskHandle(Generic[T]):
    """A task on the server."""

    def __init__(self, driver: SyncDriver, ticket: Ticket[T], terms: Terms) -> None:
        self._driver = driver
        self._ticket = ticket
        self._terms = terms

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self._ticket.task_id

    def status(self) -> TaskStatus:
        """How it is doing."""
        return self._driver.run(exchange(calls.task(self.task_id), self._terms))

    def result(self) -> T | None:
        """What it returned; None while it runs.

        Raises:
            TaskFailed: It failed or was revoked.
        """
        return self._ticket.outcome(self.status())

    def wait(self, timeout: float | None = None) -> T:
        """What it returned, as soon as it has.

        Args:
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            TaskFailed: It failed or was revoked.
            CallTimedOut: It has not ended in time; it goes on.
        """
        return self._driver.run(finished(self._ticket, self._terms, timeout))


class AsyncTaskHandle(Generic[T]):
    """A task on the server; see `TaskHandle`."""

    def __init__(self, driver: AsyncDriver, ticket: Ticket[T], terms: Terms) -> None:
        self._driver = driver
        self._ticket = ticket
        self._terms = terms

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self._ticket.task_id

    async def status(self) -> TaskStatus:
        """How it is doing."""
        return await self._driver.run(exchange(calls.task(self.task_id), self._terms))

    async def result(self) -> T | None:
        """What it returned; None while it runs."""
        return self._ticket.outcome(await self.status())

    async def wait(self, timeout: float | None = None) -> T:
        """What it returned, as soon as it has."""
        return await self._driver.run(finished(self._ticket, self._terms, timeout))
