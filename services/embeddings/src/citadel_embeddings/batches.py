"""`batch_generate_embeddings`: the requests of a batch, chunk by chunk, several chunks at once.

A redelivered batch is cheap: the vectors of its first delivery are in the cache.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain

from citadel_common.deadline import Deadline
from citadel_common.errors import CitadelError
from citadel_common.tasks.failure_policy import HandBack
from citadel_contracts import Lane
from citadel_contracts.embeddings import BatchItem, BatchProgress, BatchRequest
from citadel_embeddings.engine import EmbeddingEngine, EmbedRequest, EmbedResponse
from citadel_embeddings.results import Stopwatch, embedding_result, failed_request, task_error

Report = Callable[[BatchProgress], None]


class BatchRun:
    """One execution of a batch.

    Args:
        engine: Computes vectors.
        task_id: Id of the task, for the results.
        default_model: Model of requests that name none.
        window: Chunks in progress at once.
        stopping: Returns whether the worker is stopping.
        report: Writes the progress; may block.
        last_try: Whether the task has no retries left.
    """

    def __init__(
        self,
        engine: EmbeddingEngine,
        *,
        task_id: str,
        default_model: str,
        window: int,
        stopping: Callable[[], bool],
        report: Report,
        last_try: bool,
    ) -> None:
        self._engine = engine
        self._task_id = task_id
        self._default_model = default_model
        self._window = asyncio.Semaphore(window)
        self._stopping = stopping
        self._report = report
        self._last_try = last_try
        self._processed = self._reported = 0
        self._reporting = asyncio.Lock()
        self._transient: CitadelError | None = None

    async def run(self, batch: Sequence[BatchRequest], size: int, deadline: Deadline) -> list[BatchItem]:
        """Return the results in the order of the requests.

        Raises:
            HandBack: The worker is stopping; chunks under way were finished.
            CitadelError: A retryable error, while there are retries left.
        """
        chunks = [batch[start : start + size] for start in range(0, len(batch), size)]
        results = await asyncio.gather(*(self._chunk(chunk, len(batch), deadline) for chunk in chunks))
        if self._transient is not None:
            raise self._transient
        if any(result is None for result in results):
            raise HandBack
        return list(chain.from_iterable(result for result in results if result is not None))

    async def _chunk(self, chunk: Sequence[BatchRequest], total: int, deadline: Deadline) -> list[BatchItem] | None:
        """Return the results of a chunk; None once the worker is stopping or the task will be retried."""
        async with self._window:
            if self._stopping() or self._transient is not None:
                return None
            watch = Stopwatch()
            requests = [EmbedRequest.of(each, each.text, default_model=self._default_model) for each in chunk]
            responses = await self._engine.embed_all(requests, deadline, Lane.BATCH)
            self._note_transient(responses)
            items = [self._item(*pair, watch.ms) for pair in zip(chunk, responses, strict=True)]
            self._processed += len(chunk)
            await self._report_progress(total)
            return items

    async def _report_progress(self, total: int) -> None:
        """Report one chunk after another: chunks end at the same time, and the progress must not go back."""
        async with self._reporting:
            if self._processed == self._reported:
                return
            self._reported = self._processed
            progress: BatchProgress = {
                "processed": self._reported,
                "total": total,
                "percent": self._reported / total * 100,
            }
            await asyncio.to_thread(self._report, progress)

    def _note_transient(self, responses: Sequence[EmbedResponse | CitadelError]) -> None:
        """Remember a retryable error, for which the task is retried, while there are retries left."""
        for response in responses:
            error = task_error(response, last_try=self._last_try) if isinstance(response, EmbedResponse) else response
            if error is not None and error.retryable and not self._last_try:
                self._transient = error

    def _item(self, request: BatchRequest, response: EmbedResponse | CitadelError, elapsed_ms: float) -> BatchItem:
        if isinstance(response, CitadelError):
            return {"request_id": request.request_id, "result": failed_request(response)}
        if len(response.errors) == len(response.vectors):
            index, error = min(response.errors.items())
            return {"request_id": request.request_id, "result": failed_request(error, index)}
        result = embedding_result(
            response, task_id=self._task_id, encoding=request.encoding_format, elapsed_ms=elapsed_ms
        )
        return {"request_id": request.request_id, "result": result}
