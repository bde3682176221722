"""The client of a Citadel server."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from citadel_client import chunks, embedding
from citadel_client._async.connection import AsyncConnection
from citadel_client._async.dead_letters import AsyncDeadLetters
from citadel_client._async.runs import AsyncRuns
from citadel_client._async.tasks import AsyncTaskHandle
from citadel_client._async.workflows import AsyncBatches, AsyncCollections, AsyncWorkflows
from citadel_client.chunks import AsyncTextSource, Chunk, ChunkResult, Progress, cut_async
from citadel_client.concurrency import in_order_async
from citadel_client.embedding import EmbedOptions, Texts, Warmed
from citadel_client.errors import CitadelApiError
from citadel_client.operations import Operation, get, path_of, query, read_as
from citadel_client.options import CHUNK_SIZE, DEFAULT_TIMEOUT_S, PARALLEL, CallOptions, RetryPolicy, http_options
from citadel_client.vectors import Embedded, Embeddings
from citadel_contracts.api import (
    CacheStats,
    HealthResponse,
    HistoryKind,
    HistoryResponse,
    ModelInfo,
    QueuesResponse,
    QueueStats,
    WorkerInfo,
    WorkersResponse,
)


class AsyncCitadel:
    """Client of a Citadel server; a context manager that closes its connections.

    Threads, or tasks of one event loop, may share a client. Workflows, runs, batches, collections and dead letters
    are at `workflows`, `runs`, `batches`, `collections` and `dead_letters`.

    Args:
        base_url: URL of the server; default CITADEL_API_URL, else http://127.0.0.1:8080.
        api_key: Bearer key; default CITADEL_API_KEY.
        timeout: Seconds one call may take, its retries included.
        retry: When failed calls are tried again; calls that could do harm if made twice are not.
        transport: Replaces the network, for tests.

    Raises:
        ValueError: `base_url`, or a proxy of the environment, cannot be used.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        options = CallOptions.of(base_url, timeout, retry)
        has_transport = transport is not None
        http = httpx.AsyncClient(transport=transport, **http_options(options, api_key, has_transport=has_transport))
        self._connection = AsyncConnection(http, options)
        self.workflows = AsyncWorkflows(self._connection)
        self.runs = AsyncRuns(self._connection)
        self.batches = AsyncBatches(self._connection)
        self.collections = AsyncCollections(self._connection)
        self.dead_letters = AsyncDeadLetters(self._connection)

    @property
    def base_url(self) -> str:
        """URL of the server."""
        return self._connection.options.base_url

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def embed(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Embeddings:
        """Embed one text or several in one request; use `embed_many` for thousands.

        Raises:
            CitadelApiError: The request failed; see `citadel_client.errors`.
        """
        return await self._connection.call(embedding.embed(texts, **options))

    async def embed_many(
        self,
        texts: AsyncTextSource,
        *,
        chunk_size: int = CHUNK_SIZE,
        parallel: int = PARALLEL,
        progress: Callable[[Progress], None] | None = None,
        **options: Unpack[EmbedOptions],
    ) -> AsyncIterator[Embedded]:
        """Embed any number of texts: in order, in bounded memory, each with a vector or an error.

        Args:
            texts: Read as they are needed.
            chunk_size: Texts per request.
            parallel: Number of requests at once.
            progress: Called after each chunk.
            options: See `EmbedOptions`.

        Raises:
            CitadelApiError: The server is away, or refuses more than single texts; items yielded before are good.
        """

        async def work(chunk: Chunk) -> ChunkResult:
            return await self._embed_chunk(chunk, options)

        total = Progress()
        async with aclosing(in_order_async(cut_async(texts, chunk_size), work, parallel)) as results:
            async for result in results:
                total += result.progress
                if progress:
                    progress(total)
                for item in result.items:
                    yield item

    async def _embed_chunk(self, chunk: Chunk, options: EmbedOptions) -> ChunkResult:
        """Embed a chunk; if the server refuses texts, embed the others.

        Raises:
            CitadelApiError: The failure does not concern single texts.
        """
        if not chunk.texts:
            return ChunkResult()
        try:
            return chunks.answered(chunk, await self.embed(chunk.texts, **options))
        except CitadelApiError as error:
            if not error.concerns_texts:
                raise
            refusal = error
        named = {i: reason for i, reason in refusal.bad_items.items() if i < len(chunk.texts)}
        if len(chunk.texts) == 1:
            return chunks.failed(chunk, {0: named.get(0, refusal.message)}, refusal)
        if named:
            others = await self._embed_chunk(chunk.without(named), options)
            return chunks.merged(chunk, chunks.failed(chunk, named, refusal), others)
        first, second = chunk.halves()
        return await self._embed_chunk(first, options) + await self._embed_chunk(second, options)

    async def submit(self, texts: Texts, **options: Unpack[EmbedOptions]) -> AsyncTaskHandle[Embeddings]:
        """Have texts embedded by a task; return as soon as it is accepted."""
        accepted = await self._connection.call(embedding.submit(texts, **options))
        return AsyncTaskHandle(self._connection, accepted.task_id, embedding.embedding_result)

    async def warm(self, texts: Texts, models: Sequence[str] | None = None) -> AsyncTaskHandle[Warmed]:
        """Have texts embedded into the cache, by the named models or by every known one."""
        accepted = await self._connection.call(embedding.warm(texts, models))
        return AsyncTaskHandle(self._connection, accepted.task_id, embedding.warming_result)

    async def cache(self) -> CacheStats:
        """Return the statistics of the embedding cache."""
        return await self._connection.call(get("/v1/cache", CacheStats))

    async def models(self) -> list[ModelInfo]:
        """Return the embedding models of the live backends."""
        return await self._connection.call(Operation(method="GET", path="/v1/models", read=embedding.models))

    async def queues(self) -> list[QueueStats]:
        """Return the statistics of each queue."""
        return (await self._connection.call(get("/v1/queues", QueuesResponse))).queues

    async def workers(self) -> list[WorkerInfo]:
        """Return the live workers."""
        return (await self._connection.call(get("/v1/workers", WorkersResponse))).workers

    async def health(self) -> HealthResponse:
        """Return the server's health; a server that is down is a result, not an error."""
        read = read_as(HealthResponse)
        return await self._connection.call(
            Operation(method="GET", path="/v1/health", read=read, accepted=frozenset({503}))
        )

    async def history(
        self,
        kind: HistoryKind,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """Return results of the periodic health check or metrics task, newest first.

        Args:
            kind: Which of the two.
            since: Results from this time on.
            until: Results before this time.
            limit: Maximum number of results.
        """
        path = path_of("history", kind) + query({"since": since, "until": until, "limit": limit})
        return (await self._connection.call(get(path, HistoryResponse))).entries
