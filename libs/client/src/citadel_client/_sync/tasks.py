# Generated from _async by `make sync-client`; edits here are lost.
"""Handles on tasks."""

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from citadel_client._sync.connection import Connection
from citadel_client.operations import get, path_of, result_of
from citadel_client.options import Polling
from citadel_contracts.api import TaskStatus

T = TypeVar("T")
FIRST_POLL_S = 0.05


class TaskHandle(Generic[T]):
    """Handle on a task of the server, which goes on without it."""

    def __init__(self, connection: Connection, task_id: str, read: Callable[[dict[str, Any]], T]) -> None:
        self.task_id = task_id
        self._connection = connection
        self._read = read

    def status(self) -> TaskStatus:
        """Return the task's status."""
        return self._connection.call(get(path_of("tasks", self.task_id), TaskStatus))

    def result(self) -> T | None:
        """Return the task's result; None while it runs.

        Raises:
            TaskFailed: The task failed or was revoked.
        """
        return result_of(self.status(), self._read)

    def wait(self, timeout: float | None = None) -> T:
        """Wait for the task's result and return it.

        Args:
            timeout: Seconds to wait; None for no limit.

        Raises:
            TaskFailed: The task failed or was revoked.
            CallTimedOut: The task has not ended in time; it goes on.
        """
        polling = Polling(FIRST_POLL_S, timeout)
        while True:
            status = self.status()
            if (found := result_of(status, self._read)) is not None:
                return found
            time.sleep(polling.pause(f"task {self.task_id} is {status.status}"))
