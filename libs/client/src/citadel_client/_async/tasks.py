"""Handles on tasks."""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from citadel_client._async.connection import AsyncConnection
from citadel_client.operations import get, path_of, result_of
from citadel_client.options import Polling
from citadel_contracts.api import TaskStatus

T = TypeVar("T")
FIRST_POLL_S = 0.05


class AsyncTaskHandle(Generic[T]):
    """Handle on a task of the server, which goes on without it."""

    def __init__(self, connection: AsyncConnection, task_id: str, read: Callable[[dict[str, Any]], T]) -> None:
        self.task_id = task_id
        self._connection = connection
        self._read = read

    async def status(self) -> TaskStatus:
        """Return the task's status."""
        return await self._connection.call(get(path_of("tasks", self.task_id), TaskStatus))

    async def result(self) -> T | None:
        """Return the task's result; None while it runs.

        Raises:
            TaskFailed: The task failed or was revoked.
        """
        return result_of(await self.status(), self._read)

    async def wait(self, timeout: float | None = None) -> T:
        """Wait for the task's result and return it.

        Args:
            timeout: Seconds to wait; None for no limit.

        Raises:
            TaskFailed: The task failed or was revoked.
            CallTimedOut: The task has not ended in time; it goes on.
        """
        polling = Polling(FIRST_POLL_S, timeout)
        while True:
            status = await self.status()
            if (found := result_of(status, self._read)) is not None:
                return found
            await asyncio.sleep(polling.pause(f"task {self.task_id} is {status.status}"))
