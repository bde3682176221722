"""`embedding`: the vector of a text, or of each text of a list."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from citadel_common.errors import InvalidInput
from citadel_contracts.embeddings import Dimensions, InputType, Texts
from citadel_orchestration.steps.base import Known, Output, Parameters, StepCall, StepType, Vectors, Wanted
from citadel_orchestration.vectors.sources import required_vectors


class EmbeddingParameters(Parameters):
    """Parameters of `embedding`; see `generate_embedding`, whose arguments they are."""

    text: Texts = Field(description="One text or a list")
    model: str | None = Field(None, min_length=1, description="Model; default: the configured one")
    dimensions: Dimensions | None = Field(None, description="Length of the vectors; default: the model's own")
    input_type: InputType | None = Field(None, description="Adds the model's query or document prefix")
    options: dict[str, Any] | None = Field(None, description="Backend model options")
    cache_enabled: bool = Field(True, description="Whether the cache is read and written")


class EmbeddingStep(StepType[EmbeddingParameters]):
    """Output: `embedding` for one text, `embeddings` for a list, in its order; `truncated` are indices of cut texts."""

    name: ClassVar[str] = "embedding"
    parameters = EmbeddingParameters
    outputs: ClassVar[frozenset[str]] = frozenset(
        {"embedding", "embeddings", "model", "dimensions", "cache_hits", "truncated"}
    )

    def check(self, raw: Mapping[str, Any], known: Known) -> Iterator[tuple[str, str]]:
        """Texts that are empty, a list without any, and more dimensions than the model has."""
        text = raw.get("text")
        if text == []:
            yield "/text", "must hold at least one text"
        yield from ((f"/text{pointer}", "is empty") for pointer in _empty(text if isinstance(text, str | list) else []))
        dimensions, model = raw.get("dimensions"), raw.get("model")
        most = known.model_dimensions(model) if model is None or isinstance(model, str) else None
        if isinstance(dimensions, int) and most is not None and dimensions > most:
            yield "/dimensions", f"the model gives at most {most} dimensions, not {dimensions}"

    def wants(self, parameters: EmbeddingParameters) -> Wanted | None:
        """All texts; none for an empty list.

        Raises:
            InvalidInput: A text is empty.
        """
        for pointer in _empty(parameters.text):
            raise InvalidInput.at(f"text[{pointer[1:]}]" if pointer else "text", "is empty")
        texts = [parameters.text] if isinstance(parameters.text, str) else parameters.text
        if not texts:
            return None
        return Wanted(
            texts=texts,
            model=parameters.model,
            dimensions=parameters.dimensions,
            input_type=parameters.input_type,
            options=parameters.options,
            cache_enabled=parameters.cache_enabled,
        )

    async def execute(self, parameters: EmbeddingParameters, call: StepCall) -> Output:
        """Hands on the vectors."""
        if parameters.text == []:
            about = {"model": parameters.model, "dimensions": parameters.dimensions}
            return {"embeddings": [], **about, "cache_hits": 0, "truncated": []}
        return output_of_vectors(required_vectors(call), single=isinstance(parameters.text, str))


def output_of_vectors(found: Vectors, *, single: bool) -> Output:
    """The step's output: the vectors are all of it."""
    return {
        **({"embedding": found.vectors[0]} if single else {"embeddings": found.vectors}),
        "model": found.model,
        "dimensions": found.dimensions,
        "cache_hits": found.cache_hits,
        "truncated": found.truncated,
    }


def _empty(text: str | list[Any]) -> Iterator[str]:
    """Pointers to the empty texts."""
    if isinstance(text, str):
        return iter(() if text else ("",))
    return (f"/{index}" for index, item in enumerate(text) if item == "")
