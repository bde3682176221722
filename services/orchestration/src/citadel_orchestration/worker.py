"""The orchestration worker process."""

from collections.abc import Iterable
from typing import Any

from citadel_common.settings.common import load
from citadel_common.telemetry.pipeline import process_telemetry
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import Queue
from citadel_orchestration.service import OrchestrationService
from citadel_orchestration.settings import OrchestrationSettings
from citadel_orchestration.step_types import StepType


def main(types: Iterable[StepType[Any]] = ()) -> None:
    """Run the worker until it is told to stop.

    Args:
        types: Step types beside those that Citadel ships.
    """
    settings = load(OrchestrationSettings)
    with process_telemetry(settings.telemetry, service=Queue.ORCHESTRATION.value) as metrics:
        service = OrchestrationService(settings, metrics, types=types)
        run_worker(
            Queue.ORCHESTRATION,
            settings,
            Service(start=service.start, interrupt=service.interrupt, close=service.close, revoke=service.revoke),
            metrics,
        )
