"""`vector_upsert`: stores points, with the vectors they bring or those of their texts."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from citadel_contracts.dialects import AnyInputType
from citadel_contracts.embeddings import Dimensions
from citadel_contracts.runs import Metric
from citadel_contracts.workflows import EmbedPart
from citadel_orchestration.definition.template import text_count
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
from citadel_orchestration.vectors.points import Point, PointId, point_id
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
    input_type: AnyInputType = Field("document", description="Adds the model's query or document prefix to texts")
    vector_name: str | None = Field(None, min_length=1, description="Which of a point's vectors; default: the unnamed")
    distance: Metric | None = Field(
        None, description="Metric of a collection that is created, default cosine; an existing one must have it"
    )


class VectorUpsert(StepType[VectorUpsertParameters]):
    """Output: `upserted`, how many points were stored, and `ids`, in the order of the points."""

    name: ClassVar[str] = "vector_upsert"
    parameters = VectorUpsertParameters
    outputs: ClassVar[frozenset[str]] = frozenset({"upserted", "ids"})

    calls: ClassVar[str | None] = "upserts"

    def __init__(self, store: VectorStore) -> None:
        self._store = store

    def check(self, raw: Mapping[str, Any], catalog: Catalog) -> Iterator[Finding]:  # noqa: ARG002  (knows enough)
        """Yield points with a vector from nowhere or from two places."""
        for index, point in _written_points(raw):
            if problem := source_problem(point.get("embedding"), point.get("text")):
                yield f"/points/{index}{problem[0]}", problem[1]

    def texts(self, raw: Mapping[str, Any]) -> int | None:
        """Return how many points have a text; None if there may be more points."""
        points = raw.get("points")
        if not isinstance(points, list) or not all(isinstance(point, Mapping) for point in points):
            return None
        counts = [text_count(point.get("text")) for point in points]
        return None if None in counts else sum(count for count in counts if count)

    def vectors(self, raw: Mapping[str, Any]) -> Iterator[WrittenVector]:
        """Yield the points' vectors."""
        for index, point in _written_points(raw):
            yield from written_vectors(point, raw, ("points", index))

    def begin(self, parameters: VectorUpsertParameters) -> StepEffect:
        """Store the points, whose texts are embedded first. To store them again changes nothing.

        Raises:
            InvalidInput: A point has no vector and no text, both, or an empty text.
        """
        for index, point in enumerate(parameters.points):
            require_source(point.embedding, point.text, where=f"points[{index}]")
        texts = [point.text for point in parameters.points if point.text is not None]
        if not texts:
            return self._upsert(parameters, ())
        request = EmbedPart(
            texts=texts,
            model=parameters.model,
            dimensions=parameters.dimensions,
            input_type=parameters.input_type,
        )
        return Embed(
            requests=[request],
            then=lambda found: self._upsert(parameters, [vector.tolist() for vector in found[0].vectors]),
        )

    def _upsert(self, parameters: VectorUpsertParameters, vectors: Iterable[list[float]]) -> Execute:
        async def upsert(call: StepCall) -> Output:
            points = list(_points(parameters, vectors))
            upserted = await self._store.upsert(
                parameters.collection,
                points,
                vector_name=parameters.vector_name,
                distance=parameters.distance,
                deadline=call.deadline,
            )
            return {"upserted": upserted, "ids": [point.id for point in points]}

        return Execute(run=upsert)


def _written_points(raw: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    points = raw.get("points")
    written = enumerate(points if isinstance(points, list) else [])
    return ((index, point) for index, point in written if isinstance(point, Mapping))


def _points(parameters: VectorUpsertParameters, vectors: Iterable[list[float]]) -> Iterator[Point]:
    """Yield the points with their vectors; those of texts are in the texts' order."""
    found = iter(vectors)
    for point in parameters.points:
        vector = next(found) if point.embedding is None else point.embedding
        payload = point.payload if point.text is None else {"text": point.text, **point.payload}
        yield Point(id=_id(parameters.collection, point, vector), vector=vector, payload=payload)


def _id(collection: str, point: PointParameters, vector: list[float]) -> PointId:
    return point_id(collection, point.id, text=point.text, vector=vector, payload=point.payload)
