"""The maintenance worker process.

Threads are enough, and two of them: every clean-up works in batches of milliseconds, between which it looks at its
time limit and at whether the worker is to stop, so that no task needs a process of its own to be ended from outside.
"""

from citadel_common.settings.common import load
from citadel_common.telemetry.pipeline import metrics_of
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import Queue
from citadel_maintenance.service import MaintenanceService
from citadel_maintenance.settings import MaintenanceSettings


def main() -> None:
    """Runs the worker until it is told to stop."""
    settings = load(MaintenanceSettings)
    with metrics_of(settings.telemetry, service=Queue.MAINTENANCE.value) as metrics:
        service = MaintenanceService(settings)
        run_worker(
            Queue.MAINTENANCE,
            settings,
            Service(start=service.start, interrupt=service.interrupt, close=service.close),
            metrics,
        )
