"""`vector_upsert`: stores points, with the vectors they bring or those of their texts."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from citadel_contracts.embeddings import Dimensions, InputType
from citadel_orchestration.steps.base import Known, Output, Parameters, StepCall, StepType, Wanted
from citadel_orchestration.vectors.points import Point, PointId, point_id
from citadel_orchestration.vectors.sources import (
    Embedding,
    require_source,
    required_vectors,
    source_problem,
    space_problem,
    written_length,
)
from citadel_orchestration.vectors.store import VectorStore

MAX_POINTS = 1000
Uint64 = Annotated[int, Field(ge=0, lt=2**64)]


class PointParameters(Parameters):
    """One point of `vector_upsert`."""

    id: Uint64 | Annotated[str, Field(min_length=1)] | None = Field(
        None, description="A number, a UUID, or any string; default: one that follows from the content"
    )
    embedding: Embedding | None = Field(None, description="Its vector; or give a text")
    text: str | None = Field(None, description="The text to embed, kept in the payload as `text`")
    payload: dict[str, Any] = Field(default_factory=dict, description="JSON stored beside the vector")


class VectorUpsertParameters(Parameters):
    """Parameters of `vector_upsert`."""

    collection: str = Field(min_length=1, max_length=255, description="Where to store; created when missing")
    points: list[PointParameters] = Field(max_length=MAX_POINTS, description="What to store")
    model: str | None = Field(
        None, min_length=1, description="Model of the texts' vectors; default: the configured one"
    )
    dimensions: Dimensions | None = Field(None, description="Length of the texts' vectors; default: the model's own")
    input_type: InputType | None = Field("document", description="Adds the model's query or document prefix to texts")
    vector_name: str | None = Field(None, min_length=1, description="Which of a point's vectors; default: the unnamed")


class VectorUpsert(StepType[VectorUpsertParameters]):
    """Output: `upserted`, how many points were stored, and `ids`, in the order of the points."""

    name: ClassVar[str] = "vector_upsert"
    parameters = VectorUpsertParameters
    outputs: ClassVar[frozenset[str]] = frozenset({"upserted", "ids"})

    def __init__(self, store: VectorStore) -> None:
        self._store = store

    def check(self, raw: Mapping[str, Any], known: Known) -> Iterator[tuple[str, str]]:
        """Points with a vector from nowhere or from two places, and vectors that cannot be the collection's."""
        points = raw.get("points")
        for index, point in enumerate(points if isinstance(points, list) else []):
            if not isinstance(point, Mapping):
                continue
            if problem := source_problem(point.get("embedding"), point.get("text")):
                yield f"/points/{index}{problem[0]}", problem[1]
            length = written_length({**_model_of(raw), **point}, known)
            if mismatch := space_problem(raw.get("collection"), length, known):
                yield f"/points/{index}", mismatch

    def wants(self, parameters: VectorUpsertParameters) -> Wanted | None:
        """The texts of the points that have one, in their order.

        Raises:
            InvalidInput: A point has no vector and no text, both, or an empty text.
        """
        _require_sources(parameters)
        texts = [point.text for point in parameters.points if point.text is not None]
        if not texts:
            return None
        return Wanted(
            texts=texts,
            model=parameters.model,
            dimensions=parameters.dimensions,
            input_type=parameters.input_type,
        )

    async def execute(self, parameters: VectorUpsertParameters, call: StepCall) -> Output:
        """Stores the points; to do it again changes nothing.

        Raises:
            InvalidInput: A payload is not JSON.
            VectorStoreRefused: A vector does not fit the collection.
            VectorStoreUnavailable: The store does not answer.
        """
        _require_sources(parameters)
        points = list(_points(parameters, call))
        upserted = await self._store.upsert(
            parameters.collection, points, vector_name=parameters.vector_name, deadline=call.deadline
        )
        return {"upserted": upserted, "ids": [point.id for point in points]}


def _model_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: raw[name] for name in ("model", "dimensions") if name in raw}


def _require_sources(parameters: VectorUpsertParameters) -> None:
    for index, point in enumerate(parameters.points):
        require_source(point.embedding, point.text, where=f"points[{index}]")


def _points(parameters: VectorUpsertParameters, call: StepCall) -> Iterator[Point]:
    """The points with their vectors; those of texts came in the texts' order."""
    with_text = any(point.text is not None for point in parameters.points)
    found = iter(required_vectors(call).vectors if with_text else ())
    for point in parameters.points:
        vector = next(found) if point.embedding is None else point.embedding
        payload = point.payload if point.text is None else {"text": point.text, **point.payload}
        yield Point(id=_id(parameters.collection, point, vector), vector=vector, payload=payload)


def _id(collection: str, point: PointParameters, vector: list[float]) -> PointId:
    return point_id(collection, point.id, text=point.text, vector=vector, payload=point.payload)
