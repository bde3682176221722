"""Where a step's vector comes from, an embedding or a text, and whether it fits its collection.

The checks serve parameters as written, in which any value may be an expression, and evaluated ones alike.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from citadel_common.errors import CitadelError, InvalidInput
from citadel_orchestration.steps.base import Known, StepCall, Vectors

Embedding = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1, max_length=65_536)]
EXPRESSION = "${{"


def has_expression(value: object) -> bool:
    """Whether a value as written is an expression, or holds one, however deep."""
    rest = [value]
    while rest:
        match rest.pop():
            case str() as text if EXPRESSION in text:
                return True
            case Mapping() as mapping:
                rest += [*mapping.keys(), *mapping.values()]
            case list() as items:
                rest += items
    return False


def source_problem(embedding: object, text: object) -> tuple[str, str] | None:
    """What is wrong with an embedding and a text of which one is to be given: JSON pointer and message."""
    if embedding is None and text is None:
        return "", "needs either `embedding` or `text`"
    if embedding is not None and text is not None:
        return "/text", "stands beside `embedding`; give one of them"
    if text == "":
        return "/text", "is empty"
    return None


def require_source(embedding: object, text: object, *, where: str = "parameters") -> None:
    """Refuses evaluated parameters that have a `source_problem`.

    Raises:
        InvalidInput: With the place, such as `points[3].text`.
    """
    if problem := source_problem(embedding, text):
        pointer, message = problem
        raise InvalidInput.at(where + pointer.replace("/", "."), message)


def required_vectors(call: StepCall) -> Vectors:
    """The vectors of the texts that the step wanted.

    Raises:
        CitadelError: Nobody computed them.
    """
    if call.vectors is None:
        raise CitadelError("the vectors of the step's texts are missing")
    return call.vectors


def written_length(raw: Mapping[str, Any], known: Known) -> int | None:
    """The length of the vector that parameters as written will have; None where that is not known."""
    embedding, model, dimensions = raw.get("embedding"), raw.get("model"), raw.get("dimensions")
    if isinstance(embedding, list):
        return None if has_expression(embedding) else len(embedding)
    if raw.get("text") is None or isinstance(dimensions, str) or has_expression(model):
        return None
    if isinstance(dimensions, int):
        return dimensions
    return known.model_dimensions(model) if model is None or isinstance(model, str) else None


def space_problem(collection: object, length: int | None, known: Known) -> str | None:
    """Why vectors of that length do not belong into a collection as written; None where they do, or may."""
    if length is None or not isinstance(collection, str) or has_expression(collection):
        return None
    expected = known.collection_dimensions(collection)
    if expected is None or expected == length:
        return None
    return f"{collection!r} holds vectors of {expected} dimensions, not {length}"
