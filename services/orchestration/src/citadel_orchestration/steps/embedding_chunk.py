"""Chunks of embedding batches: not for definitions, the engine's own."""

from typing import Any, ClassVar

from citadel_contracts.embeddings import BatchRequest
from citadel_orchestration.steps.base import Output, Parameters, StepCall, StepType


class ChunkRequest(BatchRequest):
    """One request of a batch."""

    def part(self) -> dict[str, Any]:
        """As a request to the embeddings workers."""
        return {
            "texts": [self.text] if isinstance(self.text, str) else self.text,
            "model": self.model,
            "dimensions": self.dimensions,
            "input_type": self.input_type,
            "options": self.options,
            "cache_enabled": self.cache_enabled,
        }


class ChunkParameters(Parameters):
    """The requests of one chunk."""

    requests: list[ChunkRequest]


class EmbeddingChunk(StepType[ChunkParameters]):
    """The type."""

    name: ClassVar[str] = "embedding_chunk"
    parameters = ChunkParameters
    outputs: ClassVar[frozenset[str]] = frozenset({"results"})

    async def execute(self, parameters: ChunkParameters, call: StepCall) -> Output:
        """Never called: the vectors are all of a chunk."""
        raise AssertionError(f"{len(parameters.requests)} requests are for the engine, {call.step_id}")
