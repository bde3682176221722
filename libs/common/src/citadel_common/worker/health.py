"""The health file: touched as long as the process is well, read by `citadel_common.probe`."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from citadel_common.worker.running import Running

log = structlog.get_logger(__name__)


class HealthFile:
    """Touched by a thread of its own, so that neither a store that hangs nor one that is away makes it old.

    A task past its hard limit does: its thread cannot be ended from outside, so the process must be.

    Args:
        path: The file; None for none.
        running: What the worker runs.
        interval: Seconds between two touches.
    """

    def __init__(self, path: Path | None, running: "Running", *, interval: float) -> None:
        self._path = path
        self._running = running
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Begins, before the broker was reached for the first time."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._stop.set()

    def _run(self) -> None:
        while True:
            self._touch()
            if self._stop.wait(self._interval):
                return

    def _touch(self) -> None:
        stuck = self._running.stuck()
        if stuck:
            log.error("tasks_stuck", tasks=[task.task_id for task in stuck])
        elif self._path is not None:
            touch(self._path)


def touch(path: Path) -> None:
    """Makes the file as old as now; one that cannot be written costs the probe, not the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        log.warning("health_file_failed", file=str(path), error=type(error).__name__)
