"""`batch_generate_embeddings`: its own work, chunk by chunk, several chunks at once.

Redelivered, it is cheap: what was computed is in the cache.
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
from citadel_embeddings.results import Stopwatch, embedding_result, failed_request, worst

Report = Callable[[BatchProgress], None]


class BatchRun:
    """One execution of a batch."""

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
        self._passing: CitadelError | None = None

    async def run(self, batch: Sequence[BatchRequest], size: int, deadline: Deadline) -> list[BatchItem]:
        """The results in the order of the requests.

        Raises:
            HandBack: The worker is stopping; chunks under way were finished.
            CitadelError: An error that a retry may cure.
        """
        chunks = [batch[start : start + size] for start in range(0, len(batch), size)]
        results = await asyncio.gather(*(self._chunk(chunk, len(batch), deadline) for chunk in chunks))
        if self._passing is not None:
            raise self._passing
        if any(result is None for result in results):
            raise HandBack
        return list(chain.from_iterable(result for result in results if result is not None))

    async def _chunk(self, chunk: Sequence[BatchRequest], total: int, deadline: Deadline) -> list[BatchItem] | None:
        """The chunk's results; None once the worker is stopping or the task will be retried."""
        async with self._window:
            if self._stopping() or self._passing is not None:
                return None
            watch = Stopwatch()
            requests = [EmbedRequest.of(each, each.text, default_model=self._default_model) for each in chunk]
            responses = await self._engine.embed_all(requests, deadline, Lane.BATCH)
            self._note_passing(responses)
            items = [self._item(*pair, watch.ms) for pair in zip(chunk, responses, strict=True)]
            self._processed += len(chunk)
            await self._tell_progress(total)
            return items

    async def _tell_progress(self, total: int) -> None:
        """One report at a time: chunks end at once, and what is reported must not go back."""
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

    def _note_passing(self, responses: Sequence[EmbedResponse | CitadelError]) -> None:
        """Remembers an error that a retry of the task may cure, while there are retries left."""
        for response in responses:
            error = worst(response, last_try=self._last_try) if isinstance(response, EmbedResponse) else response
            if error is not None and error.transient and not self._last_try:
                self._passing = error

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
