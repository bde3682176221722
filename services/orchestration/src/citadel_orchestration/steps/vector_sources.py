"""Parameters that two types share: a vector comes as numbers, or is made from a text."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from citadel_common.errors import InvalidInput
from citadel_orchestration.step_types import EmbeddingModel, WrittenVector

Embedding = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1, max_length=65_536)]


def source_problem(embedding: object, text: object) -> tuple[str, str] | None:
    """Return what is wrong with an embedding and a text, of which one must be given: JSON pointer and message."""
    if embedding is None and text is None:
        return "", "needs either `embedding` or `text`"
    if embedding is not None and text is not None:
        return "/text", "stands beside `embedding`; give one of them"
    if text == "":
        return "/text", "is empty"
    return None


def require_source(embedding: object, text: object, *, where: str = "parameters") -> None:
    """Refuse evaluated parameters that have a `source_problem`.

    Raises:
        InvalidInput: With the place, such as `points[3].text`.
    """
    if problem := source_problem(embedding, text):
        pointer, message = problem
        raise InvalidInput.at(where + pointer.replace("/", "."), message)


def written_vectors(
    holder: Mapping[str, Any], raw: Mapping[str, Any], path: tuple[str | int, ...] = ()
) -> Iterator[WrittenVector]:
    """Yield the vector of an object with `embedding` or `text`.

    Args:
        holder: The object.
        raw: The step's parameters, which name the collection and the model of texts.
        path: Where the object stands in them.
    """
    collection, name = raw.get("collection"), raw.get("vector_name")
    if holder.get("embedding") is not None:
        yield WrittenVector((*path, "embedding"), collection, name, holder["embedding"])
    elif isinstance(holder.get("text"), str):
        model = EmbeddingModel(raw.get("model"), raw.get("dimensions"))
        yield WrittenVector((*path, "text"), collection, name, None, model)
