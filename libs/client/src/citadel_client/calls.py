"""The operations of the HTTP API as calls: what is sent, how the answer is read."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict, TypeVar, Unpack, cast
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from citadel_client.flow import Call
from citadel_client.vectors import Embeddings
from citadel_contracts.api import (
    CacheStats,
    CacheWarmRequest,
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbeddingTaskRequest,
    HealthResponse,
    ModelInfo,
    QueuesResponse,
    QueueStats,
    Reply,
    TaskAccepted,
    TaskStatus,
    WorkerInfo,
    WorkersResponse,
)
from citadel_contracts.embeddings import InputType, ItemError

M = TypeVar("M", bound=BaseModel)
Texts = str | Sequence[str]


class EmbedOptions(TypedDict, total=False):
    """How texts are embedded.

    Attributes:
        model: Model name; the server's default where left out.
        dimensions: Length of the vectors; the model's own where left out.
        input_type: `query` or `document`: adds the model's prefix.
        options: Model options of the backend.
        cache_enabled: Whether the cache is read and written.
    """

    model: str | None
    dimensions: int | None
    input_type: InputType | None
    options: dict[str, Any] | None
    cache_enabled: bool


def reader_of(model: type[M]) -> Callable[[httpx.Response], M]:
    """Reads an answer that is a document of that kind."""
    return lambda response: model.model_validate_json(response.content)


def as_list(texts: Texts) -> list[str]:
    """One text or several as a list."""
    return [texts] if isinstance(texts, str) else list(texts)


def embed(texts: Texts, **options: Unpack[EmbedOptions]) -> Call[Embeddings]:
    """Embed texts and wait for the vectors."""
    wanted = as_list(texts)
    return Call(
        method="POST",
        path="/v1/embeddings",
        body=lambda: EmbeddingsRequest(input=wanted, encoding_format="base64", **options),
        read=lambda response: _embeddings(response, len(wanted)),
    )


def _embeddings(response: httpx.Response, expected: int) -> Embeddings:
    reply = EmbeddingsResponse.model_validate_json(response.content)
    items = sorted(reply.data, key=lambda item: item.index)
    if [item.index for item in items] != list(range(expected)):
        raise ValueError("the vectors are not those of the texts")
    return Embeddings(
        encoded=tuple(item.embedding for item in items),
        model=reply.model,
        cache_hits=reply.citadel.cache_hits if reply.citadel else None,
        truncated=tuple(reply.citadel.truncated) if reply.citadel else (),
        tokens=reply.usage.total_tokens,
    )


def submit(texts: Texts, **options: Unpack[EmbedOptions]) -> Call[TaskAccepted]:
    """Have texts embedded by a task."""
    wanted = as_list(texts)
    return Call(
        method="POST",
        path="/v1/embeddings/tasks",
        body=lambda: EmbeddingTaskRequest(text=wanted, encoding_format="base64", **options),
        read=reader_of(TaskAccepted),
    )


def warm(texts: Texts, models: Sequence[str] | None) -> Call[TaskAccepted]:
    """Have texts embedded into the cache."""
    return Call(
        method="POST",
        path="/v1/cache/warm",
        body=lambda: CacheWarmRequest(texts=as_list(texts), models=list(models) if models else None),
        read=reader_of(TaskAccepted),
    )


class _Embedded(Reply):
    """What this client reads of `GenerateEmbeddingResult`."""

    embeddings: list[list[float] | str | None]
    model_used: str
    cache_hits: int
    truncated: tuple[int, ...] = ()
    total_tokens: int = 0
    errors: tuple[dict[str, Any], ...] = ()


class Warmed(Reply):
    """What became of the (text, model) pairs of a warming task."""

    warmed: int
    skipped: int
    errors: int


def embedding_result(result: dict[str, Any]) -> Embeddings:
    """What an embedding task returned."""
    found = _Embedded.model_validate(result)
    return Embeddings(
        encoded=tuple(found.embeddings),
        model=found.model_used,
        cache_hits=found.cache_hits,
        truncated=found.truncated,
        tokens=found.total_tokens,
        errors=cast("tuple[ItemError, ...]", found.errors),
    )


def warming_result(result: dict[str, Any]) -> Warmed:
    """What a warming task returned."""
    return Warmed.model_validate(result.get("cache_warming_results"))


def task(task_id: str) -> Call[TaskStatus]:
    """How a task is doing."""
    return Call(method="GET", path=f"/v1/tasks/{quote(task_id, safe='')}", read=reader_of(TaskStatus))


def cache() -> Call[CacheStats]:
    """The cache's figures."""
    return Call(method="GET", path="/v1/cache", read=reader_of(CacheStats))


def queues() -> Call[list[QueueStats]]:
    """The queues' figures."""
    read = reader_of(QueuesResponse)
    return Call(method="GET", path="/v1/queues", read=lambda response: read(response).queues)


def workers() -> Call[list[WorkerInfo]]:
    """The live workers."""
    read = reader_of(WorkersResponse)
    return Call(method="GET", path="/v1/workers", read=lambda response: read(response).workers)


def health() -> Call[HealthResponse]:
    """The server's health; a server that is down says so with 503 and the same body."""
    return Call(method="GET", path="/v1/health", read=reader_of(HealthResponse), good=frozenset({503}))


def models() -> Call[list[ModelInfo]]:
    """The embedding models that live backends have."""
    return Call(method="GET", path="/v1/models", read=_models)


def _models(response: httpx.Response) -> list[ModelInfo]:
    """OpenAI's list; what its entries have no place for is under `citadel`."""
    return [_model(entry) for entry in response.json()["data"]]


def _model(entry: dict[str, Any]) -> ModelInfo:
    known = {"name": entry["id"], "identity": entry["id"], "backend": entry.get("owned_by", "")}
    return ModelInfo.model_validate(known | (entry.get("citadel") or {}))
