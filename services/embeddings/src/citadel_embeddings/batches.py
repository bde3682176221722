"""`batch_generate_embeddings`: the requests of a batch, chunk by chunk, several chunks at once.

A redelivered batch is cheap: the vectors of its first delivery are in the cache.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from citadel_common.errors import CitadelError
from citadel_common.tasks.failure_policy import HandBack
from citadel_contracts import Lane
from citadel_contracts.embeddings import BatchGenerateEmbeddings, BatchItem, BatchProgress, BatchRequest
from citadel_embeddings.engine import EmbeddingEngine, EmbedRequest, EmbedResponse
from citadel_embeddings.results import embedding_result, failed_request, milliseconds_since, task_error

if TYPE_CHECKING:
    from citadel_common.tasks.base import TaskContext


class Batch:
    """One execution of a batch.

    Args:
        engine: Computes vectors.
        payload: The requests.
        context: The task.
        default_model: Model of requests that name none.
        window: Chunks in progress at once.
    """

    def __init__(
        self,
        engine: EmbeddingEngine,
        payload: BatchGenerateEmbeddings,
        context: "TaskContext",
        *,
        default_model: str,
        window: int,
    ) -> None:
        self._engine = engine
        self._payload = payload
        self._context = context
        self._default_model = default_model
        self._window = asyncio.Semaphore(window)
        self._processed = self._reported = 0
        self._reporting = asyncio.Lock()
        self._retryable: CitadelError | None = None

    async def run(self) -> list[BatchItem]:
        """Return the results in the order of the requests.

        Raises:
            HandBack: The worker is stopping; chunks under way were finished.
            CitadelError: A retryable error, while there are retries left.
        """
        requests, size = self._payload.batch_data, self._payload.batch_size
        chunks = [requests[start : start + size] for start in range(0, len(requests), size)]
        results = await asyncio.gather(*(self._chunk(chunk) for chunk in chunks))
        if self._retryable is not None:
            raise self._retryable
        if any(result is None for result in results):
            raise HandBack
        return list(chain.from_iterable(result for result in results if result is not None))

    async def _chunk(self, chunk: Sequence[BatchRequest]) -> list[BatchItem] | None:
        """Return the results of a chunk; None once the worker is stopping or the task will be retried."""
        async with self._window:
            if self._context.stopping() or self._retryable is not None:
                return None
            started = time.perf_counter()
            requests = [EmbedRequest.of(each, each.text, default_model=self._default_model) for each in chunk]
            responses = await self._engine.embed_all(requests, self._context.deadline, Lane.BATCH)
            self._note_retryable(responses)
            elapsed_ms = milliseconds_since(started)
            items = [self._item(*pair, elapsed_ms) for pair in zip(chunk, responses, strict=True)]
            self._processed += len(chunk)
            await self._report_progress()
            return items

    async def _report_progress(self) -> None:
        """Report one chunk after another: chunks end at the same time, and the progress must not go back."""
        async with self._reporting:
            if self._processed == self._reported:
                return
            self._reported, total = self._processed, len(self._payload.batch_data)
            percent = self._reported / total * 100
            progress: BatchProgress = {"processed": self._reported, "total": total, "percent": percent}
            await asyncio.to_thread(self._context.progress, progress)

    def _note_retryable(self, responses: Sequence[EmbedResponse | CitadelError]) -> None:
        """Remember a retryable error, for which the task is retried, while there are retries left."""
        last_try = self._context.last_try
        for response in responses:
            error = task_error(response, last_try=last_try) if isinstance(response, EmbedResponse) else response
            if error is not None and error.retryable and not last_try:
                self._retryable = error

    def _item(self, request: BatchRequest, response: EmbedResponse | CitadelError, elapsed_ms: float) -> BatchItem:
        if isinstance(response, CitadelError):
            return {"request_id": request.request_id, "result": failed_request(response)}
        if len(response.errors) == len(response.vectors):
            index, error = min(response.errors.items())
            return {"request_id": request.request_id, "result": failed_request(error, index)}
        result = embedding_result(
            response, task_id=self._context.task_id, encoding=request.encoding_format, elapsed_ms=elapsed_ms
        )
        return {"request_id": request.request_id, "result": result}
