"""Spellings of other servers for fields of embedding requests.

Sources: the documentation of OpenAI, Cohere, Voyage, Jina, NVIDIA NIM, Google, TEI, vLLM and Ollama, August 2026.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

InputType = Literal["query", "document"]
Truncate = bool | Literal["start"]
"""Treatment of a text that is too long for the model: cut at its end, refused, or cut at its start."""
_QUERY = ("query", "search_query", "retrieval_query", "question_answering", "fact_verification", "code_query")
_DOCUMENT = ("document", "passage", "search_document", "retrieval_document", "retrieval_passage", "code_passage")
_NEUTRAL = ("classification", "clustering", "semantic_similarity", "text_matching", "separation", "similarity")
INPUT_TYPES: dict[str, InputType | None] = {
    **dict.fromkeys(_QUERY, "query"),
    **dict.fromkeys(_DOCUMENT, "document"),
    **dict.fromkeys((*_NEUTRAL, "image", "none", ""), None),
}
"""By their spelling in lower case with underscores. Those that are neither query nor document add no prefix."""
_TRUNCATE: dict[str, Truncate] = {
    **dict.fromkeys(("end", "right", "auto", "true", "longest_first", "only_first"), True),
    **dict.fromkeys(("start", "left"), "start"),
    **dict.fromkeys(("none", "disabled", "false", "do_not_truncate"), False),
}


def input_type_of(value: Any) -> Any:
    """Return the input type that a spelling means; None for one without a prefix.

    Raises:
        ValueError: The spelling is not known.
    """
    if not isinstance(value, str):
        return value
    name = _plain(value)
    if name not in INPUT_TYPES:
        raise ValueError(f"must be one of {', '.join((*_QUERY, *_DOCUMENT, *_NEUTRAL))}")
    return INPUT_TYPES[name]


def truncate_of(value: Any) -> Any:
    """Return the treatment of long texts that a spelling means.

    Raises:
        ValueError: The spelling is not known.
    """
    if not isinstance(value, str):
        return value
    name = _plain(value)
    if name not in _TRUNCATE:
        raise ValueError("must be true or false, or one of END, START, NONE")
    return _TRUNCATE[name]


def _not_zero(limit: int) -> int:
    if limit == 0:
        raise ValueError("must be -1 for the model's own limit, or at least 1")
    return limit


def _plain(value: str) -> str:
    return value.strip().lower().replace("-", "_").replace(".", "_").replace(" ", "_")


AnyInputType = Annotated[InputType | None, BeforeValidator(input_type_of)]
AnyTruncate = Annotated[Truncate | None, BeforeValidator(truncate_of)]
TokenLimit = Annotated[int, Field(ge=-1, le=2**31 - 1), AfterValidator(_not_zero)]
"""Tokens to which a text is cut; -1 for as many as the model reads."""
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
