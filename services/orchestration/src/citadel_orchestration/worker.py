"""The orchestration worker process."""

from citadel_common.settings.common import load
from citadel_common.telemetry.pipeline import process_telemetry
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import Queue
from citadel_orchestration.service import OrchestrationService
from citadel_orchestration.settings import OrchestrationSettings


def main() -> None:
    """Runs the worker until it is told to stop."""
    settings = load(OrchestrationSettings)
    with process_telemetry(settings.telemetry, service=Queue.ORCHESTRATION.value) as metrics:
        service = OrchestrationService(settings, metrics)
        run_worker(
            Queue.ORCHESTRATION,
            settings,
            Service(start=service.start, interrupt=service.interrupt, close=service.close),
            metrics,
        )
