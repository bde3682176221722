"""Task results from responses: the keys of the contract, vectors in the encoding that was asked for."""

import time
from typing import Any, cast

from citadel_common.embeddings.requests import index_in
from citadel_common.embeddings.vectors import Vector, to_base64, to_json
from citadel_common.errors import BadVector, CitadelError, TextRejected
from citadel_common.timestamps import utc_now
from citadel_contracts.embeddings import (
    EncodingFormat,
    FailedRequest,
    GenerateEmbeddingResult,
    ItemError,
    Texts,
)
from citadel_embeddings.engine import EmbedResponse


def milliseconds_since(started: float) -> float:
    """Return the milliseconds since a time of `time.perf_counter`."""
    return (time.perf_counter() - started) * 1000


def embedding_result(
    response: EmbedResponse, *, task_id: str, encoding: EncodingFormat, elapsed_ms: float
) -> GenerateEmbeddingResult:
    """Return the result of `generate_embedding`."""
    total = len(response.results)
    return {
        "success": not response.errors,
        "task_id": task_id,
        "embeddings": [None if vector is None else _encoded(vector, encoding) for vector in response.vectors],
        "model_used": response.model,
        "dimensions": response.dimensions,
        "cache_hits": response.cache_hits,
        "total_texts": total,
        "cache_hit_rate": response.cache_hits / total,
        "truncated": response.truncated,
        "total_tokens": response.tokens,
        "errors": [item_error(index, error) for index, error in sorted(response.errors.items())],
        "processing_time_ms": elapsed_ms,
        "timestamp": utc_now(),
    }


def failed_request(error: CitadelError, index: int = 0) -> FailedRequest:
    """Return what stands for the result of a batch request without any vector."""
    return {"success": False, "error": item_error(index, error)}


def item_error(index: int, error: CitadelError) -> ItemError:
    """Return the error of the text at `index`."""
    return cast("ItemError", error.data.model_dump() | {"index": index})


def task_error(response: EmbedResponse, *, last_try: bool) -> CitadelError | None:
    """Return the error that ends the task: a retryable one while there are retries, or any if no text succeeded."""
    errors = response.errors.values()
    retryable = next((error for error in errors if error.retryable), None)
    if retryable is not None and not last_try:
        return retryable
    return next(iter(errors), None) if len(response.errors) == len(response.results) else None


def name_text(error: CitadelError, text: Texts, index: int) -> CitadelError:
    """Return the error of the text at `index` with that text in its message, if the error is about a text."""
    return error.about("text", index_in(text, index)) if isinstance(error, TextRejected | BadVector) else error


def _encoded(vector: Vector, encoding: EncodingFormat) -> Any:
    return to_base64(vector) if encoding == "base64" else to_json(vector)
