"""Vector spaces: vectors must have the length of those in their collection."""

import functools
from typing import Any

from citadel_orchestration.definition.checks.drafts import Draft, DraftDefinition
from citadel_orchestration.definition.checks.problems import Problems
from citadel_orchestration.definition.template import holds_expression, only_path
from citadel_orchestration.step_types import Catalog, EmbeddingModel, WrittenVector

Origin = tuple[int, str]
"""Length of a vector, and where it comes from."""


class VectorSpaces:
    """Checks the vectors of one definition; asks the catalogue about each model and collection once."""

    def __init__(self, definition: DraftDefinition, catalog: Catalog) -> None:
        self._definition = definition
        self._of_model = functools.cache(catalog.model_dimensions)
        self._of_collection = functools.cache(catalog.collection_dimensions)

    def check(self, step: Draft, problems: Problems) -> None:
        """Report vectors of a wrong length."""
        for written in () if step.type is None else step.type.vectors(step.parameters):
            collection = written.collection
            expected = self._of_collection(collection) if _is_literal(collection) else None
            origin = None if expected is None else self._origin(written)
            if origin is not None and origin[0] != expected:
                message = f"{origin[1]} has {origin[0]} dimensions, the collection `{collection}` {expected}"
                problems.add((*step.path, "parameters", *written.path), "dimension_mismatch", message)

    def _origin(self, written: WrittenVector) -> Origin | None:
        if written.model is not None:
            name = written.model.model
            return self._made(written.model, f"the text's vector by `{name}`" if name else "the text's vector")
        if isinstance(written.vector, list):
            return None if holds_expression(written.vector) else (len(written.vector), "the vector")
        return self._from_step(written.vector)

    def _from_step(self, vector: Any) -> Origin | None:
        """Return the length of a vector that another step makes."""
        expression = only_path(vector)
        if expression is None or expression.path is None or expression.path[0] != "steps":
            return None
        step_id, _, *path = [key.name for key in expression.path[1]]
        source = self._definition.by_id.get(str(step_id))
        model = None if source is None or source.type is None else source.type.vector_at(source.parameters, path)
        return None if model is None else self._made(model, f"the embedding of `{step_id}`")

    def _made(self, written: EmbeddingModel, origin: str) -> Origin | None:
        model, dimensions = written
        if isinstance(dimensions, int) and not isinstance(dimensions, bool):
            return dimensions, origin
        if dimensions is not None or not (model is None or _is_literal(model)):
            return None
        length = self._of_model(model)
        return None if length is None else (length, origin)


def _is_literal(value: Any) -> bool:
    return isinstance(value, str) and not holds_expression(value)
