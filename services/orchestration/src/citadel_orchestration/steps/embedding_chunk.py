"""`embedding_chunk`: one chunk of an embedding batch. Batches use the type; definitions of clients cannot."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from citadel_contracts import Lane
from citadel_contracts.embeddings import BatchRequest
from citadel_contracts.workflows import EmbeddedPart, EmbedPart
from citadel_orchestration.step_types import Embed, Output, Parameters, StepEffect, StepType, attempt_error


def definition_of_batch(workflow_id: str, step_id: str, *, max_parallel: int) -> dict[str, Any]:
    """Return the definition behind a batch: one step for all chunks, which are written when it is submitted."""
    step = {
        "step_id": step_id,
        "type": EmbeddingChunk.name,
        "on_error": "continue",
        "for_each": {"items": [], "max_parallel": max_parallel},
        "parameters": {"requests": "${{ item }}"},
        "retry": {"max_attempts": 10, "delay": "1s", "max_delay": "30s"},
    }
    return {"workflow_id": workflow_id, "steps": [step]}


class ChunkParameters(Parameters):
    """The requests of one chunk."""

    requests: list[BatchRequest]


class EmbeddingChunk(StepType[ChunkParameters]):
    """Output: `results`, one per request; requests fail one by one."""

    name: ClassVar[str] = "embedding_chunk"
    parameters = ChunkParameters
    outputs: ClassVar[frozenset[str]] = frozenset({"results"})
    public: ClassVar[bool] = False

    def begin(self, parameters: ChunkParameters) -> StepEffect:
        """Embed the texts of all requests, in the lane of batches whatever message carries them."""
        requests = parameters.requests
        echo = {"form": "chunk", "ids": [request.request_id for request in requests]}
        return Embed(requests=[_part(request) for request in requests], echo=echo, lane=Lane.BATCH)

    def answered(self, echo: Mapping[str, Any], answers: Sequence[EmbeddedPart]) -> Output:
        """Return the results, those of requests that failed included.

        Raises:
            CitadelError: All requests failed in a way that can pass: the chunk is tried again.
        """
        errors = [attempt_error(answer.error) for answer in answers if answer.error is not None]
        if len(errors) == len(answers) and all(error.retryable for error in errors):
            raise errors[0]
        return {
            "results": [
                {"request_id": request_id, **answer.model_dump(exclude_none=True)}
                for request_id, answer in zip(echo["ids"], answers, strict=True)
            ]
        }


def _part(request: BatchRequest) -> EmbedPart:
    return EmbedPart(
        texts=[request.text] if isinstance(request.text, str) else request.text,
        model=request.model,
        dimensions=request.dimensions,
        input_type=request.input_type,
        options=request.options,
        cache_enabled=request.cache_enabled,
        truncate=request.truncate,
        truncate_prompt_tokens=request.truncate_prompt_tokens,
    )
