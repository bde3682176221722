"""Parameters: they must fit their type's model, and vectors their collection, wherever values are known already."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from citadel_contracts.errors import path_of_pointer
from citadel_orchestration.definition.checks.draft import Draft, DraftDefinition, Path, Problems
from citadel_orchestration.definition.template import holds_expression, only_path
from citadel_orchestration.step_types import Catalog, EmbeddingModel, WrittenVector

_OF_WHOLE = frozenset({"value_error", "assertion_error"})
Origin = tuple[int, str]
"""Length of a vector, and where it comes from."""


def check_parameters(step: Draft, catalog: Catalog, problems: Problems) -> None:
    """Report what does not fit the model, and what the type itself finds wrong."""
    if step.type is None or not isinstance(step.raw.get("parameters"), dict | None):
        return
    where = (*step.path, "parameters")
    found = 0
    for detail in _errors(step):
        path, value = _place(step.parameters, detail["loc"])
        if not _may_pass(detail, value):
            found += 1
            path = (*path, detail["loc"][-1]) if detail["type"] == "missing" else path
            problems.add((*where, *path), _code(detail), _message(detail))
    if not found:
        for below, message in step.type.check(step.parameters, catalog):
            problems.add((*where, *path_of_pointer(below)), "step_check", message)


def _errors(step: Draft) -> list[ErrorDetails]:
    if step.type is None:
        return []
    try:
        step.type.parameters.model_validate(step.parameters)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False, include_input=False)
    return []


def _place(parameters: Any, location: Sequence[str | int]) -> tuple[Path, Any]:
    """Return the deepest part of an error's location that is written, and its value, without names of union members."""
    path: list[str | int] = []
    value = parameters
    for part in location:
        if isinstance(value, str):
            break
        if _has(value, part):
            value = value[part]
            path.append(part)
    return tuple(path), value


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value)


def _may_pass(detail: ErrorDetails, value: Any) -> bool:
    """Return True if the value of an expression may still be right."""
    if detail["type"] in ("missing", "extra_forbidden"):
        return False
    if isinstance(value, str):
        return holds_expression(value)
    return detail["type"] in _OF_WHOLE and holds_expression(value)


def _code(detail: ErrorDetails) -> str:
    return {"missing": "missing_parameter", "extra_forbidden": "unknown_parameter"}.get(detail["type"], "bad_parameter")


def _message(detail: ErrorDetails) -> str:
    name = detail["loc"][-1] if detail["loc"] else ""
    if detail["type"] == "missing":
        return f"the parameter `{name}` is needed"
    if detail["type"] == "extra_forbidden":
        return f"there is no parameter `{name}`"
    return detail["msg"].removeprefix("Value error, ")


class VectorSpaces:
    """Checks the vectors of one definition; asks the catalogue about each model and collection once."""

    def __init__(self, definition: DraftDefinition, catalog: Catalog) -> None:
        self._definition = definition
        self._of_model = functools.cache(catalog.model_dimensions)
        self._of_collection = functools.cache(catalog.collection_vectors)

    def check(self, step: Draft, problems: Problems) -> None:
        """Report vectors of a wrong length."""
        for written in () if step.type is None else step.type.vectors(step.parameters):
            collection, name = written.collection, written.name
            known = self._of_collection(collection) if _is_literal(collection) else None
            if not known or not (name is None or _is_literal(name)):
                continue
            expected = known.get(name or "")
            if expected is None:
                problems.add((*step.path, "parameters"), "unknown_vector", _no_such(collection, name, known))
                return
            origin = self._origin(written)
            if origin is not None and origin[0] != expected:
                whole = f"the vector `{name}` of the collection" if name else "the collection"
                message = f"{origin[1]} has {origin[0]} dimensions, {whole} `{collection}` {expected}"
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


def _no_such(collection: str, name: str | None, known: Mapping[str, int]) -> str:
    wanted = f"vector named `{name}`" if name else "unnamed vector; name one with `vector_name`"
    named = ", ".join(f"`{each}` ({size})" for each, size in known.items() if each) or "only the unnamed one"
    return f"the collection `{collection}` has no {wanted}: it has {named}"


def _is_literal(value: Any) -> bool:
    return isinstance(value, str) and not holds_expression(value)
