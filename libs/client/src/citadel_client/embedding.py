"""The operations that embed texts, and what their answers mean."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack, cast

import httpx

from citadel_client.operations import Operation, encode, read_as
from citadel_client.vectors import Embeddings
from citadel_contracts.api import (
    CacheWarmRequest,
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbeddingTaskRequest,
    ModelInfo,
    Reply,
    TaskAccepted,
)
from citadel_contracts.embeddings import InputType, ItemError

Texts = str | Sequence[str]


class EmbedOptions(TypedDict, total=False):
    """How texts are embedded.

    Attributes:
        model: Model name; the server's default if left out.
        dimensions: Length of the vectors; the model's own if left out.
        input_type: `query` or `document`: adds the model's prefix.
        options: Model options of the backend.
        cache_enabled: Whether the cache is read and written.
    """

    model: str | None
    dimensions: int | None
    input_type: InputType | None
    options: dict[str, Any] | None
    cache_enabled: bool


class Warmed(Reply):
    """Numbers of (text, model) pairs that a warming task stored, found stored, and failed to embed."""

    warmed: int
    skipped: int
    errors: int


class _TaskResult(Reply):
    """The fields of `GenerateEmbeddingResult` that this client reads."""

    embeddings: list[list[float] | str | None]
    model_used: str
    cache_hits: int
    truncated: tuple[int, ...] = ()
    total_tokens: int = 0
    errors: tuple[dict[str, Any], ...] = ()


def embed(texts: Texts, **options: Unpack[EmbedOptions]) -> Operation[Embeddings]:
    """Return the operation that embeds texts and answers with their vectors."""
    wanted = _as_list(texts)
    return Operation(
        method="POST",
        path="/v1/embeddings",
        content=encode(EmbeddingsRequest, input=wanted, encoding_format="base64", **options),
        read=_embeddings(len(wanted)),
    )


def _embeddings(expected: int) -> Callable[[httpx.Response], Embeddings]:
    def read(response: httpx.Response) -> Embeddings:
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

    return read


def submit(texts: Texts, **options: Unpack[EmbedOptions]) -> Operation[TaskAccepted]:
    """Return the operation that has texts embedded by a task."""
    content = encode(EmbeddingTaskRequest, text=_as_list(texts), encoding_format="base64", **options)
    return Operation(method="POST", path="/v1/embeddings/tasks", content=content, read=read_as(TaskAccepted))


def warm(texts: Texts, models: Sequence[str] | None) -> Operation[TaskAccepted]:
    """Return the operation that has texts embedded into the cache by a task."""
    content = encode(CacheWarmRequest, texts=_as_list(texts), models=list(models) if models else None)
    return Operation(method="POST", path="/v1/cache/warm", content=content, read=read_as(TaskAccepted))


def _as_list(texts: Texts) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def embedding_result(result: dict[str, Any]) -> Embeddings:
    """Return the vectors in the result of an embedding task."""
    found = _TaskResult.model_validate(result)
    return Embeddings(
        encoded=tuple(found.embeddings),
        model=found.model_used,
        cache_hits=found.cache_hits,
        truncated=found.truncated,
        tokens=found.total_tokens,
        errors=cast("tuple[ItemError, ...]", found.errors),
    )


def warming_result(result: dict[str, Any]) -> Warmed:
    """Return the counts in the result of a warming task."""
    return Warmed.model_validate(result.get("cache_warming_results"))


def models(response: httpx.Response) -> list[ModelInfo]:
    """Return the models of OpenAI's list; `citadel` in its entries has the fields that OpenAI's form lacks."""
    return [_model(entry) for entry in response.json()["data"]]


def _model(entry: dict[str, Any]) -> ModelInfo:
    known = {"name": entry["id"], "identity": entry["id"], "backend": entry.get("owned_by", "")}
    return ModelInfo.model_validate(known | (entry.get("citadel") or {}))
