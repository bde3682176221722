"""The blocking client."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from citadel_client import calls, operation_calls
from citadel_client.calls import EmbedOptions, Texts, Warmed
from citadel_client.chunks import Progress, cut, embedded
from citadel_client.dead_letters import DeadLetters
from citadel_client.drivers import SyncDriver, client_options
from citadel_client.flow import Call, Terms, exchange
from citadel_client.retries import RetryPolicy
from citadel_client.runs import Runs
from citadel_client.streams import in_order
from citadel_client.tasks import TaskHandle, submitted
from citadel_client.vectors import Embedded, Embeddings
from citadel_client.workflows import Batches, Collections, Workflows
from citadel_contracts.api import CacheStats, HealthResponse, HistoryKind, ModelInfo, QueueStats, WorkerInfo

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_TIMEOUT_S = 120.0
CHUNK_SIZE = 64
PARALLEL = 4


def terms(base_url: str | None, timeout: float, retry: RetryPolicy | None) -> Terms:
    """Terms of calls; the URL is the argument's, else CITADEL_API_URL's, else that of `citadel dev`."""
    url = base_url or os.environ.get("CITADEL_API_URL") or DEFAULT_URL
    return Terms(base_url=url.rstrip("/"), timeout=timeout, retry=retry or RetryPolicy())


def key(api_key: str | None) -> str | None:
    """The API key: the argument's, else CITADEL_API_KEY's."""
    return api_key or os.environ.get("CITADEL_API_KEY") or None


class Citadel:
    """A Citadel server; threads may share one.

    Workflows, runs, batches, collections and dead letters are at `workflows`, `runs`, `batches`, `collections` and
    `dead_letters`.

    Args:
        base_url: Where it is; default CITADEL_API_URL, else http://127.0.0.1:8080.
        api_key: Bearer key; default CITADEL_API_KEY.
        timeout: Seconds one call may take, its retries included.
        retry: When failed calls are tried again; only calls that may be made twice without harm.
        transport: Replaces the network, for tests.

    Raises:
        ValueError: `base_url` is not the URL of a server.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._terms = terms(base_url, timeout, retry)
        self._http = httpx.Client(transport=transport, **client_options(self._terms.base_url, key(api_key)))
        self._driver = SyncDriver(self._http)
        self.workflows = Workflows(self._driver, self._terms)
        self.runs = Runs(self._driver, self._terms)
        self.batches = Batches(self._driver, self._terms)
        self.collections = Collections(self._driver, self._terms)
        self.dead_letters = DeadLetters(self._driver, self._terms)

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._terms.base_url

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, call: Call[T]) -> T:
        return self._driver.run(exchange(call, self._terms))

    def embed(self, texts: Texts, **options: Unpack[EmbedOptions]) -> Embeddings:
        """Embed one text or several in one request; for thousands take `embed_many`.

        Raises:
            CitadelApiError: The request failed; see `citadel_client.errors`.
        """
        return self._call(calls.embed(texts, **options))

    def embed_many(
        self,
        texts: Iterable[str],
        *,
        chunk_size: int = CHUNK_SIZE,
        parallel: int = PARALLEL,
        progress: Callable[[Progress], None] | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Iterator[Embedded]:
        """Embed any number of texts: in order, in bounded memory, each with a vector or an error.

        Args:
            texts: Read as they are needed.
            chunk_size: Texts per request.
            parallel: Requests at once.
            progress: Called after each chunk.
            options: See `EmbedOptions`.

        Raises:
            CitadelApiError: The server is away, or refuses more than single texts; what came before is good.
        """
        total = Progress()
        chunks = cut(texts, chunk_size)
        results = in_order(chunks, lambda chunk: self._driver.run(embedded(chunk, options, self._terms)), parallel)
        with closing(results):
            for result in results:
                total += result.progress
                if progress:
                    progress(total)
                yield from result.items

    def submit(self, texts: Texts, **options: Unpack[EmbedOptions]) -> TaskHandle[Embeddings]:
        """Have texts embedded by a task; returns as soon as it is accepted."""
        flow = submitted(calls.submit(texts, **options), calls.embedding_result, self._terms)
        return TaskHandle(self._driver, self._driver.run(flow), self._terms)

    def warm(self, texts: Texts, models: Sequence[str] | None = None) -> TaskHandle[Warmed]:
        """Have texts embedded into the cache; no `models` means every known one."""
        flow = submitted(calls.warm(texts, models), calls.warming_result, self._terms)
        return TaskHandle(self._driver, self._driver.run(flow), self._terms)

    def cache(self) -> CacheStats:
        """The cache's figures."""
        return self._call(calls.cache())

    def models(self) -> list[ModelInfo]:
        """The embedding models that live backends have."""
        return self._call(calls.models())

    def queues(self) -> list[QueueStats]:
        """The queues' figures."""
        return self._call(calls.queues())

    def workers(self) -> list[WorkerInfo]:
        """The live workers."""
        return self._call(calls.workers())

    def health(self) -> HealthResponse:
        """The server's health; a server that is down is an answer here, no error."""
        return self._call(calls.health())

    def history(
        self,
        kind: HistoryKind,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """What the periodic health check or metrics task found, from `since` on and before `until`, newest first."""
        return self._call(operation_calls.history(kind, since, until, limit))
