"""The health of a worker, for `citadel_common.probe` by a health file and for the service manager."""

import threading
import time
from pathlib import Path

import structlog

from citadel_common.supervisor import NULL_SUPERVISOR, Supervisor
from citadel_common.tasks.runtime import TaskRuntime

log = structlog.get_logger(__name__)


class Health:
    """Reports health from a thread of its own, so that a store that hangs does not silence it.

    A task past its hard limit does silence it: the task's thread cannot be ended from outside, so the process must be.

    Args:
        runtime: The worker's runtime. Its settings name the file, if any, and the seconds between two touches.
        supervisor: The service manager, which may want signs of life more often.
    """

    def __init__(self, runtime: TaskRuntime, supervisor: Supervisor = NULL_SUPERVISOR) -> None:
        self._runtime = runtime
        self._supervisor = supervisor
        self._file = runtime.settings.worker.health_file
        self._interval = min(runtime.settings.worker.heartbeat_interval, supervisor.interval)
        self._consumes = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Start the thread, before the broker was reached for the first time."""
        self._thread.start()

    def ready(self) -> None:
        """Report that the worker consumes from now on."""
        self._consumes = True
        self._supervisor.ready(self._status())

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()

    def _run(self) -> None:
        while True:
            self._vouch()
            if self._stop.wait(self._interval):
                return

    def _vouch(self) -> None:
        stuck = self._runtime.running.stuck()
        if stuck:
            log.error("tasks_stuck", tasks=[task.task_id for task in stuck])
            return
        self._supervisor.alive(self._status())
        if self._file is not None:
            touch(self._file)

    def _status(self) -> str:
        if not self._consumes:
            return "waiting for the broker"
        running = self._runtime.running
        return f"consuming {self._runtime.identity.queue}: {len(running.tasks())} running, {running.processed} done"


def touch(path: Path) -> None:
    """Touch the file, and write the monotonic time into it; if that fails, the probe suffers and not the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.write_text(f"{time.monotonic()!r}\n", encoding="ascii")
    except OSError as error:
        log.warning("health_file_failed", file=str(path), error=type(error).__name__)
