"""`embedding`: the vector of a text, or of each text of a list."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from citadel_common.errors import InvalidInput
from citadel_contracts.dialects import AnyInputType, AnyTruncate, TokenLimit
from citadel_contracts.embeddings import Dimensions, Texts
from citadel_contracts.workflows import EmbeddedPart, EmbedPart
from citadel_orchestration.definition.template import text_count
from citadel_orchestration.step_types import (
    Catalog,
    Embed,
    Embedded,
    EmbeddingModel,
    Execute,
    Finding,
    Output,
    Parameters,
    StepCall,
    StepEffect,
    StepType,
)


class EmbeddingParameters(Parameters):
    """Parameters of `embedding`; see `generate_embedding`, whose arguments they are."""

    text: Texts = Field(description="One text or a list")
    model: str | None = Field(None, min_length=1, description="Model; default: the configured one")
    dimensions: Dimensions | None = Field(None, description="Length of the vectors; default: the model's own")
    input_type: AnyInputType = Field(None, description="Adds the model's query or document prefix")
    options: dict[str, Any] | None = Field(None, description="Backend model options")
    cache_enabled: bool = Field(True, description="Whether the cache is read and written")
    truncate: AnyTruncate = Field(None, description="Cut texts that are too long, refuse them, or cut their `start`")
    truncate_prompt_tokens: TokenLimit | None = Field(
        None, description="Tokens to which texts are cut; -1: all it reads"
    )


class EmbeddingStep(StepType[EmbeddingParameters]):
    """Output: `embedding` for one text, `embeddings` for a list, in its order; `truncated` are indices of cut texts."""

    name: ClassVar[str] = "embedding"
    parameters = EmbeddingParameters
    outputs: ClassVar[frozenset[str]] = frozenset(
        {"embedding", "embeddings", "model", "dimensions", "cache_hits", "truncated"}
    )

    def check(self, raw: Mapping[str, Any], catalog: Catalog) -> Iterator[Finding]:
        """Yield texts that are empty, a list without any, and more dimensions than the model has."""
        text = raw.get("text")
        if text == []:
            yield "/text", "must hold at least one text"
        yield from ((f"/text{pointer}", "is empty") for pointer in _empty(text if isinstance(text, str | list) else []))
        dimensions, model = raw.get("dimensions"), raw.get("model")
        most = catalog.model_dimensions(model) if model is None or isinstance(model, str) else None
        if isinstance(dimensions, int) and most is not None and dimensions > most:
            yield "/dimensions", f"the model gives at most {most} dimensions, not {dimensions}"

    def texts(self, raw: Mapping[str, Any]) -> int | None:
        """Return how many texts there are."""
        return text_count(raw.get("text"))

    def vector_at(self, raw: Mapping[str, Any], path: Sequence[str | int]) -> EmbeddingModel | None:
        """Return the model of `embedding`, or of one of `embeddings`."""
        one_of_many = len(path) > 1 and path[-2] == "embeddings" and isinstance(path[-1], int)
        if path[-1:] == ["embedding"] or one_of_many:
            return EmbeddingModel(raw.get("model"), raw.get("dimensions"))
        return None

    def begin(self, parameters: EmbeddingParameters) -> StepEffect:
        """Embed all texts; the vectors are the output.

        Raises:
            InvalidInput: A text is empty.
        """
        for pointer in _empty(parameters.text):
            raise InvalidInput.at(f"text[{pointer[1:]}]" if pointer else "text", "is empty")
        if not parameters.text:
            return Execute(run=lambda call: _nothing(parameters, call))
        single = isinstance(parameters.text, str)
        request = EmbedPart(
            texts=[parameters.text] if isinstance(parameters.text, str) else parameters.text,
            model=parameters.model,
            dimensions=parameters.dimensions,
            input_type=parameters.input_type,
            options=parameters.options,
            cache_enabled=parameters.cache_enabled,
            truncate=parameters.truncate,
            truncate_prompt_tokens=parameters.truncate_prompt_tokens,
        )
        return Embed(requests=[request], echo={"form": "embedding" if single else "embeddings"})

    def answered(self, echo: Mapping[str, Any], answers: Sequence[EmbeddedPart]) -> Output:
        """Return the vectors, as arrays of float32: their JSON is half as long as that of Python's floats."""
        found = Embedded.of(answers[0])
        return {
            **({"embedding": found.vectors[0]} if echo["form"] == "embedding" else {"embeddings": found.vectors}),
            "model": found.model,
            "dimensions": found.dimensions,
            "cache_hits": found.cache_hits,
            "truncated": found.truncated,
        }


async def _nothing(parameters: EmbeddingParameters, _call: StepCall) -> Output:
    """Return the output for a list without texts."""
    about = {"model": parameters.model, "dimensions": parameters.dimensions}
    return {"embeddings": [], **about, "cache_hits": 0, "truncated": []}


def _empty(text: str | list[Any]) -> Iterator[str]:
    """Yield pointers to the empty texts."""
    if isinstance(text, str):
        return iter(() if text else ("",))
    return (f"/{index}" for index, item in enumerate(text) if item == "")
