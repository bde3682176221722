"""What this worker runs now, and how much it has done."""

import threading
import time
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
    _tasks: dict[str, RunningTask] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, task_id: str, name: str, *, hard_limit: float, accepted: bool) -> None:
        """Notes a task's start; `hard_limit` in seconds."""
        with self._lock:
            self._tasks[task_id] = RunningTask(
                task_id=task_id, name=name, must_end_at=time.monotonic() + hard_limit, accepted=accepted
            )

    def end(self, task_id: str, *, ok: bool) -> None:
        """Notes a task's end."""
        with self._lock:
            self._tasks.pop(task_id, None)
            self.processed += 1
            self.failed += not ok

    def has(self, task_id: str) -> bool:
        """Whether that task runs here now."""
        with self._lock:
            return task_id in self._tasks

    def tasks(self) -> list[RunningTask]:
        """The running tasks."""
        with self._lock:
            return list(self._tasks.values())

    def stuck(self) -> list[RunningTask]:
        """Tasks past their hard limit; a thread cannot be ended from outside, so the process must be."""
        now = time.monotonic()
        return [task for task in self.tasks() if task.must_end_at < now]
