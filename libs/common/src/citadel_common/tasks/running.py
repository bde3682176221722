"""The tasks that this worker runs, and counts of those that it has run."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class RunningTask:
    """One task in a thread; `must_end_at` is its hard limit on the monotonic clock."""

    task_id: str
    name: str
    must_end_at: float
    accepted: bool


@dataclass
class RunningTasks:
    """The running tasks and counts of one process; thread-safe."""

    processed: int = 0
    failed: int = 0
    clock: Callable[[], float] = time.monotonic
    _tasks: dict[str, RunningTask] = field(default_factory=dict)
    _cancels: dict[str, Callable[[], None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, task_id: str, name: str, *, hard_limit: float, accepted: bool) -> None:
        """Note a task's start; `hard_limit` is in seconds."""
        with self._lock:
            self._tasks[task_id] = RunningTask(
                task_id=task_id, name=name, must_end_at=self.clock() + hard_limit, accepted=accepted
            )

    def end(self, task_id: str, *, ok: bool) -> None:
        """Note a task's end."""
        with self._lock:
            self._tasks.pop(task_id, None)
            self._cancels.pop(task_id, None)
            self.processed += 1
            self.failed += not ok

    def cancel_by(self, task_id: str, cancel: Callable[[], None]) -> None:
        """Note how a running task's work is cancelled: thread-safe, at any time, more than once."""
        with self._lock:
            self._cancels[task_id] = cancel

    def cancel(self, task_id: str) -> None:
        """Cancel the work of a task that runs here and can be cancelled."""
        with self._lock:
            cancel = self._cancels.get(task_id)
        if cancel is not None:
            cancel()

    def has(self, task_id: str) -> bool:
        """Return whether that task runs here now."""
        with self._lock:
            return task_id in self._tasks

    def tasks(self) -> list[RunningTask]:
        """Return the running tasks."""
        with self._lock:
            return list(self._tasks.values())

    def stuck(self) -> list[RunningTask]:
        """Return tasks past their hard limit; their threads cannot be ended from outside, so the process must be."""
        now = self.clock()
        return [task for task in self.tasks() if task.must_end_at < now]
