"""Properties of models that are known in advance: dimensions, context, prefixes, options to pin."""

from typing import Any

from pydantic import Field

from citadel_common.settings.common import Fragment


class ModelProfile(Fragment):
    """Properties of one model, whichever backend serves it."""

    dimensions: int | None = Field(None, ge=1, description="Length of its vectors")
    max_tokens: int | None = Field(None, ge=1, description="Tokens it sees; longer texts are cut, and said to be")
    matryoshka: bool = Field(default=False, description="Whether its vectors may be shortened (`dimensions`)")
    query_prefix: str = Field("", description="Put before texts of input_type `query`")
    document_prefix: str = Field("", description="Put before texts of input_type `document`")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Backend options sent with every request; pinned, because a changed one reloads the model",
    )


_MXBAI_QUERY = "Represent this sentence for searching relevant passages: "

BUILT_IN: dict[str, ModelProfile] = {
    "nomic-embed-text": ModelProfile(
        dimensions=768,
        max_tokens=2048,
        matryoshka=True,
        query_prefix="search_query: ",
        document_prefix="search_document: ",
        options={"num_ctx": 2048},
    ),
    "mxbai-embed-large": ModelProfile(
        dimensions=1024, max_tokens=512, matryoshka=True, query_prefix=_MXBAI_QUERY, options={"num_ctx": 512}
    ),
    "bge-m3": ModelProfile(dimensions=1024, max_tokens=8192, options={"num_ctx": 8192, "num_batch": 8192}),
    "all-minilm": ModelProfile(dimensions=384, max_tokens=256, options={"num_ctx": 256}),
}
"""Models that work without configuration. Sources: their model cards; Ollama's context limits."""

UNKNOWN = ModelProfile()
"""Profile of a model that is neither built in nor configured."""
