"""Task results: the seed's keys, vectors in the form that was asked for."""

import time
from typing import Any

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
from citadel_embeddings.engine import Outcome


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def ms(self) -> float:
        """Elapsed milliseconds."""
        return (time.perf_counter() - self._started) * 1000


def embedding_result(
    outcome: Outcome, *, task_id: str, encoding: EncodingFormat, elapsed_ms: float
) -> GenerateEmbeddingResult:
    """The result of `generate_embedding`."""
    total = len(outcome.vectors)
    return {
        "success": not outcome.errors,
        "task_id": task_id,
        "embeddings": [None if vector is None else _encoded(vector, encoding) for vector in outcome.vectors],
        "model_used": outcome.model,
        "dimensions": outcome.dimensions,
        "cache_hits": outcome.cache_hits,
        "total_texts": total,
        "cache_hit_rate": outcome.cache_hits / total,
        "truncated": outcome.truncated,
        "total_tokens": outcome.tokens,
        "errors": [item_error(index, error) for index, error in sorted(outcome.errors.items())],
        "processing_time_ms": elapsed_ms,
        "timestamp": utc_now(),
    }


def failed_request(error: CitadelError, index: int = 0) -> FailedRequest:
    """Stands for the result of a batch request without any vector."""
    return {"success": False, "error": item_error(index, error)}


def item_error(index: int, error: CitadelError) -> ItemError:
    """One text's error."""
    return {"index": index, "code": error.code, "message": error.message}


def worst(outcome: Outcome, *, last_try: bool) -> CitadelError | None:
    """The error that ends the task: one that a retry may cure, or any when nothing succeeded."""
    errors = outcome.errors.values()
    passing = next((error for error in errors if error.transient), None)
    if passing is not None and not last_try:
        return passing
    return next(iter(errors), None) if len(outcome.errors) == len(outcome.vectors) else None


def named(error: CitadelError, field: str) -> CitadelError:
    """The same error; one that speaks of a text is led by its field."""
    return type(error)(f"{field}: {error.message}") if isinstance(error, TextRejected | BadVector) else error


def field_of(text: Texts, index: int) -> str:
    """`text`, or `text[3]` in a list."""
    return "text" if isinstance(text, str) else f"text[{index}]"


def _encoded(vector: Vector, encoding: EncodingFormat) -> Any:
    return to_base64(vector) if encoding == "base64" else to_json(vector)
