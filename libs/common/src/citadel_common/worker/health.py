"""Whether the worker is well: said by a health file, which `citadel_common.probe` reads, and to the service manager."""

import threading
from pathlib import Path

import structlog

from citadel_common.supervisor import NULL_SUPERVISOR, Supervisor
from citadel_common.tasks.runtime import TaskRuntime

log = structlog.get_logger(__name__)


class Health:
    """Said by a thread of its own, so that neither a store that hangs nor one that is away keeps it silent.

    A task past its hard limit does: its thread cannot be ended from outside, so the process must be.

    Args:
        runtime: What the worker is and runs. Its settings name the file, if any, and the seconds between two touches.
        supervisor: Who watches, perhaps more closely than that.
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
        """Begins, before the broker was reached for the first time."""
        self._thread.start()

    def ready(self) -> None:
        """Tells that the worker consumes from now on."""
        self._consumes = True
        self._supervisor.ready(self._status())

    def stop(self) -> None:
        """Ends it."""
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
    """Makes the file as old as now; one that cannot be written costs the probe, not the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        log.warning("health_file_failed", file=str(path), error=type(error).__name__)
