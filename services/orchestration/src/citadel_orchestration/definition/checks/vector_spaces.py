"""Vector spaces: that vectors have the length that their collection asks for."""

import functools
from collections.abc import Iterator
from typing import Any

from citadel_orchestration.definition.checks.drafts import Draft, DraftDefinition
from citadel_orchestration.definition.checks.problems import Path, Problems
from citadel_orchestration.definition.template import holds_expression, only_path
from citadel_orchestration.steps.base import Known

EMBEDDING, SEARCH, UPSERT = "embedding", "vector_search", "vector_upsert"

Origin = tuple[Path, int, str]
"""Path below the parameters, length of the vector, and where it comes from."""


class VectorSpaces:
    """Judges the searches and upserts of one definition; what is known is asked for once."""

    def __init__(self, definition: DraftDefinition, known: Known) -> None:
        self._definition = definition
        self._of_model = functools.cache(known.model_dimensions)
        self._of_collection = functools.cache(known.collection_dimensions)

    def check(self, step: Draft, problems: Problems) -> None:
        """Reports vectors of a wrong length."""
        collection = step.parameters.get("collection")
        named = step.parameters.get("vector_name") is not None
        if step.raw.get("type") not in (SEARCH, UPSERT) or named or not _is_literal(collection):
            return
        asked = self._of_collection(str(collection))
        if asked is None:
            return
        for path, length, origin in self._origins(step):
            if length != asked:
                message = f"{origin} has {length} dimensions, the collection `{collection}` {asked}"
                problems.add((*step.path, "parameters", *path), "dimension_mismatch", message)

    def _origins(self, step: Draft) -> Iterator[Origin]:
        parameters = step.parameters
        if step.raw.get("type") == SEARCH:
            yield from self._vector(parameters, (), parameters)
            return
        points = parameters.get("points")
        for index, point in enumerate(points if isinstance(points, list) else []):
            if isinstance(point, dict):
                yield from self._vector(point, ("points", index), parameters)

    def _vector(self, holder: dict[str, Any], path: Path, made_with: dict[str, Any]) -> Iterator[Origin]:
        vector = holder.get("embedding")
        if isinstance(vector, list) and not holds_expression(vector):
            yield (*path, "embedding"), len(vector), "the vector"
        elif isinstance(vector, str):
            yield from self._from_step(vector, (*path, "embedding"))
        elif isinstance(holder.get("text"), str):
            length, model = self._made(made_with), made_with.get("model")
            if length is not None:
                yield (*path, "text"), length, f"the text's vector by `{model}`" if model else "the text's vector"

    def _from_step(self, vector: str, path: Path) -> Iterator[Origin]:
        """A vector that an `embedding` step has made."""
        expression = only_path(vector)
        if expression is None or expression.path is None or expression.path[0] != "steps":
            return
        names = [key.name for key in expression.path[1]]
        source = self._definition.by_id.get(str(names[0]))
        if source is None or source.raw.get("type") != EMBEDDING or not _is_vector(names):
            return
        length = self._made(source.parameters)
        if length is not None:
            yield path, length, f"the embedding of `{names[0]}`"

    def _made(self, parameters: dict[str, Any]) -> int | None:
        """Length of the vectors that an embedding with these parameters gives."""
        dimensions, model = parameters.get("dimensions"), parameters.get("model")
        if isinstance(dimensions, int) and not isinstance(dimensions, bool):
            return dimensions
        if dimensions is not None or not (model is None or _is_literal(model)):
            return None
        return self._of_model(model)


def _is_literal(value: Any) -> bool:
    return isinstance(value, str) and not holds_expression(value)


def _is_vector(names: list[str | int]) -> bool:
    """`….embedding`, or one of `….embeddings`."""
    return names[-1] == "embedding" or (len(names) > 2 and names[-2] == "embeddings" and isinstance(names[-1], int))
