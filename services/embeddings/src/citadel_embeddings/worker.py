"""The embeddings worker process."""

from citadel_common.contracts import Queue
from citadel_common.settings import load
from citadel_common.telemetry.pipeline import telemetry_of
from citadel_common.worker.launch import Service, run_worker
from citadel_embeddings.service import EmbeddingService
from citadel_embeddings.settings import EmbeddingsSettings


def main() -> None:
    """Runs the worker until it is told to stop."""
    settings = load(EmbeddingsSettings)
    with telemetry_of(settings.telemetry, service=Queue.EMBEDDINGS.value) as telemetry:
        service = EmbeddingService(settings, telemetry)
        run_worker(
            Queue.EMBEDDINGS,
            settings,
            Service(start=service.start, interrupt=service.interrupt, close=service.close),
            telemetry,
        )
