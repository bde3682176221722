"""Tasks of the embeddings queue: each hands its payload to the engine and returns the result."""

import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from citadel_common.delivery.server_clock import ServerClock
from citadel_common.embeddings.requests import check_texts
from citadel_common.errors import InvalidInput
from citadel_common.loop_thread import LoopThread
from citadel_common.tasks.base import TaskContext, register
from citadel_common.timestamps import utc_now
from citadel_contracts import BATCH_GENERATE_EMBEDDINGS, EMBED_STEPS, GENERATE_EMBEDDING, WARM_EMBEDDING_CACHE
from citadel_contracts.embeddings import (
    BatchGenerateEmbeddings,
    BatchGenerateEmbeddingsResult,
    GenerateEmbedding,
    GenerateEmbeddingResult,
    WarmEmbeddingCache,
    WarmEmbeddingCacheResult,
)
from citadel_contracts.workflows import STEP_TIMEOUTS_HEADER, EmbedSteps
from citadel_embeddings.batches import Batch
from citadel_embeddings.engine import EmbeddingEngine, EmbedRequest
from citadel_embeddings.results import embedding_result, milliseconds_since, name_text, task_error
from citadel_embeddings.settings import EmbeddingsSettings
from citadel_embeddings.step_vectors import StepVectors, deadlines_of
from citadel_embeddings.warming import warm

if TYPE_CHECKING:
    from celery import Celery

T = TypeVar("T")


class EmbeddingTasks:
    """Handlers of the tasks.

    Args:
        engine: Computes vectors.
        steps: Answers workflow steps.
        loop: The event loop on which both live.
        settings: Settings of the worker.
        clock: The broker's.
    """

    def __init__(
        self,
        engine: EmbeddingEngine,
        steps: StepVectors,
        loop: LoopThread,
        settings: EmbeddingsSettings,
        clock: ServerClock,
    ) -> None:
        self._engine = engine
        self._steps = steps
        self._loop = loop
        self._settings = settings
        self._clock = clock

    def register(self, app: "Celery") -> None:
        """Register the handlers with an app."""
        register(app, EMBED_STEPS, self.embed_steps)
        register(app, GENERATE_EMBEDDING, self.generate_embedding)
        register(app, BATCH_GENERATE_EMBEDDINGS, self.batch_generate_embeddings)
        register(app, WARM_EMBEDDING_CACHE, self.warm_embedding_cache)

    def generate_embedding(self, payload: GenerateEmbedding, context: TaskContext) -> GenerateEmbeddingResult:
        """Embed one text or a list."""
        started = time.perf_counter()
        request = EmbedRequest.of(payload, payload.text, default_model=self._settings.default_model)
        response = self._call(self._engine.embed(request, context.deadline, context.lane), context)
        error = task_error(response, last_try=context.last_try)
        if error is not None:
            index = next(index for index, other in response.errors.items() if other is error)
            raise name_text(error, payload.text, index)
        return embedding_result(
            response, task_id=context.task_id, encoding=payload.encoding_format, elapsed_ms=milliseconds_since(started)
        )

    def batch_generate_embeddings(
        self, payload: BatchGenerateEmbeddings, context: TaskContext
    ) -> BatchGenerateEmbeddingsResult:
        """Embed the texts of many requests; one bad request never fails the others."""
        started = time.perf_counter()
        total = len(payload.batch_data)
        self._check_batch_size(total)
        window, default_model = self._settings.embeddings.batch_window, self._settings.default_model
        batch = Batch(self._engine, payload, context, default_model=default_model, window=window)
        items = self._call(batch.run(), context)
        elapsed_ms = milliseconds_since(started)
        return {
            "success": all(item["result"]["success"] for item in items),
            "task_id": context.task_id,
            "total_requests": total,
            "total_processed": len(items),
            "failed_requests": sum("error" in item["result"] for item in items),
            "batch_results": items,
            "processing_time_ms": elapsed_ms,
            "average_time_per_request": elapsed_ms / total,
            "timestamp": utc_now(),
        }

    def warm_embedding_cache(self, payload: WarmEmbeddingCache, context: TaskContext) -> WarmEmbeddingCacheResult:
        """Embed the texts that the cache lacks, for each model."""
        started = time.perf_counter()
        self._check_warm_texts(payload.texts)
        models, counts = self._call(warm(self._engine, payload, context), context)
        return {
            "success": counts["errors"] == 0,
            "task_id": context.task_id,
            "cache_warming_results": counts,
            "models": models,
            "processing_time_ms": milliseconds_since(started),
            "timestamp": utc_now(),
        }

    def embed_steps(self, payload: EmbedSteps, context: TaskContext) -> None:
        """Embed the texts of workflow steps, and send the vectors to the workflow engine."""
        timeouts = context.header(STEP_TIMEOUTS_HEADER)
        deadlines = deadlines_of(payload.steps, timeouts, context.deadline, self._clock)
        answers = self._steps.answer(payload.steps, deadlines, lane=context.lane, task_id=context.task_id)
        self._loop.call(answers, context.deadline)

    def _call(self, coroutine: Coroutine[Any, Any, T], context: TaskContext) -> T:
        """Return the coroutine's result; it is cancelled when the task is revoked."""
        call = self._loop.submit(coroutine)
        context.cancel_by(call.cancel)
        return self._loop.result(call, context.deadline)

    def _check_batch_size(self, total: int) -> None:
        limit = self._settings.limits.max_batch_requests
        if not total:
            raise InvalidInput.at("batch_data", "must hold at least one request")
        if total > limit:
            raise InvalidInput.at("batch_data", f"holds {total} requests, the limit is {limit}")

    def _check_warm_texts(self, texts: Sequence[str]) -> None:
        limits = self._settings.limits
        check_texts(list(texts), limits.model_copy(update={"max_texts": limits.max_batch_requests}), field="texts")
