"""`vector_search`: the points of a collection that are nearest to a vector, or to a text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from citadel_common.errors import VectorStoreRefused
from citadel_contracts.dialects import AnyInputType
from citadel_contracts.embeddings import Dimensions
from citadel_contracts.workflows import EmbedPart
from citadel_orchestration.definition.template import holds_expression, text_count
from citadel_orchestration.step_types import (
    Catalog,
    Embed,
    Execute,
    Finding,
    Output,
    Parameters,
    StepCall,
    StepEffect,
    StepType,
    WrittenVector,
)
from citadel_orchestration.steps.vector_sources import Embedding, require_source, source_problem, written_vectors
from citadel_orchestration.vectors.filters import read_filter
from citadel_orchestration.vectors.store import VectorStore


class VectorSearchParameters(Parameters):
    """Parameters of `vector_search`."""

    collection: str = Field(min_length=1, max_length=255, description="Where to look")
    embedding: Embedding | None = Field(None, description="The vector to look for; or give a text")
    text: str | None = Field(None, description="The text to look for")
    model: str | None = Field(None, min_length=1, description="Model of the text's vector; default: the configured one")
    dimensions: Dimensions | None = Field(None, description="Length of the text's vector; default: the model's own")
    input_type: AnyInputType = Field("query", description="Adds the model's query or document prefix to the text")
    limit: int = Field(10, ge=1, le=1000, description="Hits at most")
    filter: dict[str, Any] | None = Field(
        None, description="Qdrant's filter, or a mapping of payload keys to the values they must have"
    )
    score_threshold: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Score that hits are nearer than: above it by cosine and dot, below it by euclid and manhattan",
    )
    vector_name: str | None = Field(None, min_length=1, description="Which of a point's vectors; default: the unnamed")
    with_payload: bool | list[str] = Field(True, description="Whether hits carry their payload, or which keys of it")


class VectorSearch(StepType[VectorSearchParameters]):
    """Output: `hits`, nearest first, each with `id`, `score`, `metric` and `payload`."""

    name: ClassVar[str] = "vector_search"
    parameters = VectorSearchParameters
    outputs: ClassVar[frozenset[str]] = frozenset({"hits"})

    calls: ClassVar[str | None] = "searches"

    def __init__(self, store: VectorStore) -> None:
        self._store = store

    def check(self, raw: Mapping[str, Any], catalog: Catalog) -> Iterator[Finding]:  # noqa: ARG002  (knows enough)
        """Yield a vector from nowhere or from two places, and a bad filter."""
        if problem := source_problem(raw.get("embedding"), raw.get("text")):
            yield problem
        yield from _filter_problems(raw.get("filter"))

    def texts(self, raw: Mapping[str, Any]) -> int | None:
        """Return 1 if a text is searched for."""
        return text_count(raw.get("text"))

    def vectors(self, raw: Mapping[str, Any]) -> Iterator[WrittenVector]:
        """Yield the vector to look for."""
        return written_vectors(raw, raw)

    def begin(self, parameters: VectorSearchParameters) -> StepEffect:
        """Search; a text is embedded first.

        Raises:
            InvalidInput: There is no vector and no text, both, or an empty text.
        """
        require_source(parameters.embedding, parameters.text)
        if parameters.text is None:
            return self._search(parameters, parameters.embedding or [])
        request = EmbedPart(
            texts=[parameters.text],
            model=parameters.model,
            dimensions=parameters.dimensions,
            input_type=parameters.input_type,
        )
        return Embed(requests=[request], then=lambda found: self._search(parameters, found[0].vectors[0].tolist()))

    def _search(self, parameters: VectorSearchParameters, vector: Sequence[float]) -> Execute:
        async def search(call: StepCall) -> Output:
            hits = await self._store.search(
                parameters.collection,
                vector,
                limit=parameters.limit,
                conditions=parameters.filter,
                score_threshold=parameters.score_threshold,
                vector_name=parameters.vector_name,
                with_payload=parameters.with_payload,
                deadline=call.deadline,
            )
            return {"hits": [hit.document() for hit in hits]}

        return Execute(run=search)


def _filter_problems(raw: Any) -> Iterator[Finding]:
    if not isinstance(raw, dict) or holds_expression(raw):
        return
    try:
        read_filter(raw)
    except VectorStoreRefused as error:
        yield "/filter", error.message
