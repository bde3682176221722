"""The embeddings worker process."""

from citadel_common.settings.common import load
from citadel_common.telemetry.pipeline import process_telemetry
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import Queue
from citadel_embeddings.service import EmbeddingService
from citadel_embeddings.settings import EmbeddingsSettings


def main() -> None:
    """Run the worker until it is told to stop."""
    settings = load(EmbeddingsSettings)
    with process_telemetry(settings.telemetry, service=Queue.EMBEDDINGS.value) as metrics:
        service = EmbeddingService(settings, metrics)
        run_worker(
            Queue.EMBEDDINGS,
            settings,
            Service(start=service.start, interrupt=service.interrupt, close=service.close),
            metrics,
        )
