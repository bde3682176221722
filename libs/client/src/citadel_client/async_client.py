"""The awaiting client."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from citadel_client import calls, operation_calls
from citadel_client.async_runs import AsyncRuns
from citadel_client.async_workflows import AsyncBatches, AsyncCollections, AsyncWorkflows
from citadel_client.calls import EmbedOptions, Texts, Warmed
from citadel_client.chunks import Chunk, ChunkResult, Progress, cut, embedded
from citadel_client.client import CHUNK_SIZE, DEFAULT_TIMEOUT_S, PARALLEL, key, terms
from citadel_client.dead_letters import AsyncDeadLetters
from citadel_client.drivers import AsyncDriver, client_options
from citadel_client.flow import Call, exchange
from citadel_client.retries import RetryPolicy
from citadel_client.streams import in_order_async
from citadel_client.tasks import AsyncTaskHandle, submitted
from citadel_client.vectors import Embedded, Embeddings
from citadel_contracts.api import CacheStats, HealthResponse, HistoryKind, ModelInfo, QueueStats, WorkerInfo

T = TypeVar("T")


class AsyncCitadel:
    """A Citadel server; `Citadel` documents arguments, results and errors."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._terms = terms(base_url, timeout, retry)
        self._http = httpx.AsyncClient(transport=transport, **client_options(self._terms.base_url, key(api_key)))
        self._driver = AsyncDriver(self._http)
        self.workflows = AsyncWorkflows(self._driver, self._terms)
        self.runs = AsyncRuns(self._driver, self._terms)
        self.batches = AsyncBatches(self._driver, self._terms)
        self.collections = AsyncCollections(self._driver, self._terms)
        self.dead_letters = AsyncDeadLetters(self._driver, self._terms)

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._terms.base_url

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, call: Call[T]) -> T:
        return await self._driver.run(exchange(call, self._terms))

    async def embed(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Embeddings:
        """Embed one text or several in one request."""
        return await self._call(calls.embed(texts, **options))

    async def embed_many(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        chunk_size: int = CHUNK_SIZE,
        parallel: int = PARALLEL,
        progress: Callable[[Progress], None] | None = None,
        **options: Unpack[EmbedOptions],
    ) -> AsyncIterator[Embedded]:
        """Embed any number of texts: in order, in bounded memory, each with a vector or an error."""

        async def work(chunk: Chunk) -> ChunkResult:
            return await self._driver.run(embedded(chunk, options, self._terms))

        total = Progress()
        async with aclosing(in_order_async(_chunks(texts, chunk_size), work, parallel)) as results:
            async for result in results:
                total += result.progress
                if progress:
                    progress(total)
                for item in result.items:
                    yield item

    async def submit(self, texts: Texts, **options: Unpack[EmbedOptions]) -> AsyncTaskHandle[Embeddings]:
        """Have texts embedded by a task; returns as soon as it is accepted."""
        flow = submitted(calls.submit(texts, **options), calls.embedding_result, self._terms)
        return AsyncTaskHandle(self._driver, await self._driver.run(flow), self._terms)

    async def warm(self, texts: Texts, models: Sequence[str] | None = None) -> AsyncTaskHandle[Warmed]:
        """Have texts embedded into the cache; no `models` means every known one."""
        flow = submitted(calls.warm(texts, models), calls.warming_result, self._terms)
        return AsyncTaskHandle(self._driver, await self._driver.run(flow), self._terms)

    async def cache(self) -> CacheStats:
        """The cache's figures."""
        return await self._call(calls.cache())

    async def models(self) -> list[ModelInfo]:
        """The embedding models that live backends have."""
        return await self._call(calls.models())

    async def queues(self) -> list[QueueStats]:
        """The queues' figures."""
        return await self._call(calls.queues())

    async def workers(self) -> list[WorkerInfo]:
        """The live workers."""
        return await self._call(calls.workers())

    async def health(self) -> HealthResponse:
        """The server's health; a server that is down is an answer here, no error."""
        return await self._call(calls.health())

    async def history(
        self,
        kind: HistoryKind,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """What the periodic health check or metrics task found, from `since` on and before `until`, newest first."""
        return await self._call(operation_calls.history(kind, since, until, limit))


async def _chunks(texts: Iterable[str] | AsyncIterable[str], size: int) -> AsyncIterator[Chunk]:
    if not isinstance(texts, AsyncIterable):
        for chunk in cut(texts, size):
            yield chunk
        return
    start, pending = 0, list[str]()
    async for text in texts:
        pending.append(text)
        if len(pending) == size:
            yield Chunk(start=start, texts=tuple(pending))
            start, pending = start + size, []
    if pending:
        yield Chunk(start=start, texts=tuple(pending))
