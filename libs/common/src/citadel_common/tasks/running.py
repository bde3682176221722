"""The tasks that this worker runs, and counts of those that it has run."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class RunningTask:
    """One task in a thread; times are on the monotonic clock.

    Attributes:
        task_id: Its id.
        name: Its name.
        must_end_at: Its hard limit.
        accepted: Whether it is an accepted task, which has a lease.
        leased_at: When its lease was asked for, the last time with success.
    """

    task_id: str
    name: str
    must_end_at: float
    accepted: bool
    leased_at: float = 0.0


@dataclass
class RunningTasks:
    """The running tasks and counts of one process; thread-safe."""

    processed: int = 0
    failed: int = 0
    clock: Callable[[], float] = time.monotonic
    _tasks: dict[str, RunningTask] = field(default_factory=dict)
    _cancels: dict[str, Callable[[], None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(
        self, task_id: str, name: str, *, hard_limit: float, accepted: bool, leased_at: float | None = None
    ) -> None:
        """Note a task's start; `hard_limit` is in seconds."""
        now = self.clock()
        with self._lock:
            self._tasks[task_id] = RunningTask(
                task_id=task_id,
                name=name,
                must_end_at=now + hard_limit,
                accepted=accepted,
                leased_at=now if leased_at is None else leased_at,
            )

    def renewed(self, task_ids: Iterable[str], *, at: float) -> None:
        """Note that the leases of tasks were renewed, by a command sent at that time."""
        with self._lock:
            for task_id in task_ids:
                task = self._tasks.get(task_id)
                if task is not None:
                    self._tasks[task_id] = replace(task, leased_at=at)

    def lease_age(self, task_id: str) -> float:
        """Return the seconds for which a task's lease has not been renewed; 0 for one that does not run here."""
        with self._lock:
            task = self._tasks.get(task_id)
            return 0.0 if task is None else self.clock() - task.leased_at

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
