"""`vector_search`: the points of a collection that are nearest to a vector, or to a text."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import Field

from citadel_common.errors import VectorStoreRefused
from citadel_contracts.embeddings import Dimensions, InputType
from citadel_orchestration.steps.base import Known, Output, Parameters, StepCall, StepType, Wanted
from citadel_orchestration.vectors.filters import read_filter
from citadel_orchestration.vectors.sources import (
    Embedding,
    has_expression,
    require_source,
    required_vectors,
    source_problem,
    space_problem,
    written_length,
)
from citadel_orchestration.vectors.store import VectorStore


class VectorSearchParameters(Parameters):
    """Parameters of `vector_search`."""

    collection: str = Field(min_length=1, max_length=255, description="Where to look")
    embedding: Embedding | None = Field(None, description="The vector to look for; or give a text")
    text: str | None = Field(None, description="The text to look for")
    model: str | None = Field(None, min_length=1, description="Model of the text's vector; default: the configured one")
    dimensions: Dimensions | None = Field(None, description="Length of the text's vector; default: the model's own")
    input_type: InputType | None = Field("query", description="Adds the model's query or document prefix to the text")
    limit: int = Field(10, ge=1, le=1000, description="Hits at most")
    filter: dict[str, Any] | None = Field(
        None, description="Qdrant's filter, or a mapping of payload keys to the values they must have"
    )
    score_threshold: float | None = Field(None, allow_inf_nan=False, description="Score that a hit reaches at least")
    vector_name: str | None = Field(None, min_length=1, description="Which of a point's vectors; default: the unnamed")
    with_payload: bool | list[str] = Field(True, description="Whether hits carry their payload, or which keys of it")


class VectorSearch(StepType[VectorSearchParameters]):
    """Output: `hits`, nearest first, each with `id`, `score` and `payload`."""

    name: ClassVar[str] = "vector_search"
    parameters = VectorSearchParameters
    outputs: ClassVar[frozenset[str]] = frozenset({"hits"})

    def __init__(self, store: VectorStore) -> None:
        self._store = store

    def check(self, raw: Mapping[str, Any], known: Known) -> Iterator[tuple[str, str]]:
        """A vector from nowhere or from two places, a bad filter, and a vector that cannot be the collection's."""
        if problem := source_problem(raw.get("embedding"), raw.get("text")):
            yield problem
        yield from _filter_problems(raw.get("filter"))
        if mismatch := space_problem(raw.get("collection"), written_length(raw, known), known):
            yield "/collection", mismatch

    def wants(self, parameters: VectorSearchParameters) -> Wanted | None:
        """The text, if that is what to look for.

        Raises:
            InvalidInput: There is no vector and no text, both, or an empty text.
        """
        require_source(parameters.embedding, parameters.text)
        if parameters.text is None:
            return None
        return Wanted(
            texts=[parameters.text],
            model=parameters.model,
            dimensions=parameters.dimensions,
            input_type=parameters.input_type,
        )

    async def execute(self, parameters: VectorSearchParameters, call: StepCall) -> Output:
        """Searches.

        Raises:
            NotFound: There is no such collection.
            VectorStoreRefused: The vector or the filter does not fit it.
            VectorStoreUnavailable: The store does not answer.
        """
        require_source(parameters.embedding, parameters.text)
        hits = await self._store.search(
            parameters.collection,
            parameters.embedding or required_vectors(call).vectors[0],
            limit=parameters.limit,
            conditions=parameters.filter,
            score_threshold=parameters.score_threshold,
            vector_name=parameters.vector_name,
            with_payload=parameters.with_payload,
            deadline=call.deadline,
        )
        return {"hits": [asdict(hit) for hit in hits]}


def _filter_problems(raw: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(raw, dict) or has_expression(raw):
        return
    try:
        read_filter(raw)
    except VectorStoreRefused as error:
        yield "/filter", error.message
