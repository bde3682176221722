"""The monitoring worker process."""

from citadel_common.settings.common import load
from citadel_common.telemetry.pipeline import process_telemetry
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import Queue
from citadel_monitoring.service import MonitoringService
from citadel_monitoring.settings import MonitoringSettings


def main() -> None:
    """Runs the worker until it is told to stop."""
    settings = load(MonitoringSettings)
    with process_telemetry(settings.telemetry, service=Queue.MONITORING.value) as metrics:
        service = MonitoringService(settings)
        run_worker(
            Queue.MONITORING,
            settings,
            Service(start=service.start, interrupt=service.interrupt, close=service.close),
            metrics,
        )
