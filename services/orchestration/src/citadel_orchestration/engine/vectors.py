"""Vectors that steps need: what is asked of the embeddings workers, and what their answer means.

A step of type `embedding` is nothing but its vectors, so their message ends it; `echo` says in which form. Steps
of other types go on when their vectors have come.
"""

from typing import Any

from citadel_common.embeddings.vectors import from_base64
from citadel_common.errors import CitadelError, DeadlineExceeded, StepTimedOut, from_data
from citadel_contracts import Lane
from citadel_contracts.errors import ErrorData
from citadel_contracts.workflows import EmbeddedPart, EmbedPart, StepEmbedded
from citadel_orchestration.steps.base import Parameters, StepType, Vectors, Wanted
from citadel_orchestration.steps.embedding import EmbeddingParameters, EmbeddingStep, output_of_vectors
from citadel_orchestration.steps.embedding_chunk import ChunkParameters, EmbeddingChunk


def parts_of(type_: StepType[Any], parameters: Parameters) -> list[EmbedPart] | None:
    """The requests to the embeddings workers; None for a step that needs no vectors."""
    if isinstance(parameters, ChunkParameters):
        return [EmbedPart(**request.part()) for request in parameters.requests]
    wanted = type_.wants(parameters)
    return None if wanted is None else [_part(wanted)]


def _part(wanted: Wanted) -> EmbedPart:
    return EmbedPart(
        texts=wanted.texts,
        model=wanted.model,
        dimensions=wanted.dimensions,
        input_type=wanted.input_type,
        options=None if wanted.options is None else dict(wanted.options),
        cache_enabled=wanted.cache_enabled,
    )


def echo_of(type_: StepType[Any], parameters: Parameters) -> dict[str, Any] | None:
    """What comes back with the vectors: the form of the output, where they are all of it."""
    if isinstance(type_, EmbeddingChunk) and isinstance(parameters, ChunkParameters):
        return {"form": "chunk", "ids": [request.request_id for request in parameters.requests]}
    if isinstance(type_, EmbeddingStep) and isinstance(parameters, EmbeddingParameters):
        return {"form": "embedding" if isinstance(parameters.text, str) else "embeddings"}
    return None


def lane_of(echo: dict[str, Any] | None) -> Lane | None:
    """Return the lane of a step's texts; None for the run's. Chunks of batches never hold up single texts."""
    return Lane.BATCH if (echo or {}).get("form") == "chunk" else None


def output_of(message: StepEmbedded) -> Any:
    """The step's output, or the error that it fails with; None where the step goes on with the vectors."""
    echo = message.echo or {}
    if echo.get("form") == "chunk":
        return _chunk_output(message, echo["ids"])
    part = message.parts[0]
    error = error_of(part)
    if error is not None:
        return error
    if "form" not in echo:
        return None
    return output_of_vectors(vectors_of(part), single=echo["form"] == "embedding") | _compact(part, echo["form"])


def error_of(part: EmbeddedPart) -> CitadelError | None:
    """Why a request as a whole has no usable answer: one text without a vector is enough."""
    if part.error is not None:
        return _error(part.error)
    if part.errors:
        first = part.errors[0]
        return _error(first).about("text", first.index)
    return None


def _error(data: ErrorData) -> CitadelError:
    """The error; the deadline that was exceeded is that of the attempt, and another one has its own."""
    if data.code == DeadlineExceeded.code:
        data = data.model_copy(update={"code": StepTimedOut.code, "retryable": StepTimedOut.transient})
    return from_data(data)


def vectors_of(part: EmbeddedPart) -> Vectors:
    """The vectors of a request that has them all."""
    return Vectors(
        vectors=[from_base64(vector).tolist() for vector in part.vectors if vector is not None],
        model=part.model,
        dimensions=part.dimensions,
        cache_hits=part.cache_hits,
        truncated=part.truncated,
    )


def _compact(part: EmbeddedPart, form: str) -> dict[str, Any]:
    """The vectors as arrays of float32, whose JSON is half as long as that of Python's floats."""
    arrays = [from_base64(vector) for vector in part.vectors if vector is not None]
    return {form: arrays[0] if form == "embedding" else arrays}


def failed_requests(output: dict[str, Any]) -> int:
    """How many requests of a chunk with this output have a text without a vector."""
    return sum("error" in result or bool(result.get("errors")) for result in output["results"])


def _chunk_output(message: StepEmbedded, ids: list[Any]) -> Any:
    """Results of the requests of a chunk; where all failed in a way that can pass, the chunk is tried again."""
    errors = [_error(part.error) for part in message.parts if part.error is not None]
    if len(errors) == len(message.parts) and all(error.transient for error in errors):
        return errors[0]
    return {
        "results": [
            {"request_id": request_id, **part.model_dump(exclude_none=True)}
            for request_id, part in zip(ids, message.parts, strict=True)
        ]
    }
