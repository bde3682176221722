"""Checks of an embedding request, the same in the API and in the worker. Each error names the field."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from citadel_common.embeddings.catalog import Catalog
from citadel_common.errors import InvalidInput, UnknownModel
from citadel_common.settings.common import LimitSettings
from citadel_contracts import json_text
from citadel_contracts.api import ModelInfo
from citadel_contracts.dialects import Truncate
from citadel_contracts.embeddings import InputType, Texts

LONGEST_NAME = 200
"""Characters of a model's name in an error."""
SEND_TEXTS = "send texts (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
"""The way out for clients whose token ids mean nothing to a model."""
SPECIAL_TOKENS = 2
"""Tokens that a model adds to each text."""


def as_list(text: Texts) -> list[str]:
    """Return one text or many as a list."""
    return [text] if isinstance(text, str) else text


def check_texts(text: Texts, limits: LimitSettings, *, field: str = "text") -> list[str]:
    """Return the texts, if they may be embedded at all.

    Raises:
        InvalidInput: None, too many, one too long or not encodable as UTF-8.
    """
    texts = as_list(text)
    if not texts:
        raise InvalidInput.at(field, "must hold at least one text")
    if len(texts) > limits.max_texts:
        raise InvalidInput.at(field, f"holds {len(texts)} texts, the limit is {limits.max_texts}")
    for index, item in enumerate(texts):
        if len(item) > limits.max_text_chars:
            problem = f"has {len(item)} characters, the limit is {limits.max_text_chars}"
            raise InvalidInput.at(field, problem, index_in(text, index))
        if not item.isascii() and not _is_utf8(item):
            raise InvalidInput.at(field, "is not valid Unicode: it holds a lone surrogate", index_in(text, index))
    return texts


def check_not_empty(text: Texts, texts: Sequence[str], model: ModelInfo, *, field: str = "text") -> None:
    """Refuse an empty text if the backend would refuse it.

    Raises:
        InvalidInput: A text is empty and the model's backend has no vector for that.
    """
    if model.accepts_empty or all(texts):
        return
    index = next(i for i, item in enumerate(texts) if not item)
    problem = f"is empty, and {model.name!r} has no vector for an empty text"
    raise InvalidInput.at(field, problem, index_in(text, index))


def find_model(name: str, catalog: Catalog, *, field: str = "model") -> ModelInfo | None:
    """Return the model's entry; None if the catalog does not list it and cannot rule it out.

    Raises:
        UnknownModel: No live backend has it.
    """
    model = catalog.find(name)
    if model is None and not catalog.open:
        known = ", ".join(sorted(catalog.models)) or "none"
        raise UnknownModel.at(field, f"no backend has {name[:LONGEST_NAME]!r}; available: {known}")
    return model


def check_dimensions(dimensions: int | None, model: ModelInfo, *, field: str = "dimensions") -> int | None:
    """Return the dimensions to ask the backend for; None for the model's own.

    Raises:
        InvalidInput: The model cannot give them.
    """
    own = model.dimensions
    if dimensions is None or own is None or dimensions == own:
        return None if dimensions == own else dimensions
    if dimensions > own:
        raise InvalidInput.at(field, f"{model.name!r} gives at most {own} dimensions, not {dimensions}")
    if not model.matryoshka:
        raise InvalidInput.at(field, f"{model.name!r} gives {own} dimensions and cannot be shortened")
    return dimensions


def check_options(options: Mapping[str, Any] | None, *, field: str = "options") -> None:
    """Refuse options that cannot be sent to a backend.

    Raises:
        InvalidInput: They hold a number that JSON or 64 bits cannot hold, or half of a surrogate pair.
    """
    try:
        json_text.check(options)
        orjson.dumps(options)
    except (TypeError, json_text.UnusableValue) as error:
        raise InvalidInput.at(field, f"cannot be sent to a backend: {error}") from None


def prefix_of(model: ModelInfo, input_type: InputType | None) -> str:
    """Return the prefix that the model wants before a text of this kind."""
    if input_type is None:
        return ""
    return model.query_prefix if input_type == "query" else model.document_prefix


def no_tokenizer(model: str, *, field: str = "text") -> InvalidInput:
    """Return the error of token ids for a model whose tokenizer is not at hand."""
    return InvalidInput.at(field, f"holds token ids, and the tokenizer of {model!r} is not at hand; {SEND_TEXTS}")


def token_limit(
    texts: Sequence[str], model: ModelInfo, prefix: str, *, truncate: Truncate | None, limit: int | None
) -> int | None:
    """Return the tokens to which some text has to be cut by the model's own tokenizer; None if there is none to cut.

    A text that is longer than the model's context is not meant: backends cut those at their end.

    Args:
        texts: The texts.
        model: Their model.
        prefix: Its prefix for them.
        truncate: Treatment of long texts.
        limit: Tokens that the request allows, special tokens included; -1 or None for as many as the model reads.

    Raises:
        InvalidInput: The beginning is to be cut off, and the model's context is not known.
    """
    own, wanted = model.max_tokens, None if limit is None or limit < 0 else limit
    if truncate is False or (truncate != "start" and (wanted is None or wanted >= (own or wanted + 1))):
        return None
    if wanted is None and own is None:
        raise InvalidInput.at("truncate", f"the context of {model.name!r} is not known: name `truncate_prompt_tokens`")
    most = min(tokens for tokens in (own, wanted) if tokens is not None)
    room = most - SPECIAL_TOKENS - len(prefix.encode())  # a token stands for at least one byte
    return most if any(len(text) * 4 > room and len(text.encode()) > room for text in texts) else None


def index_in(text: Texts, index: int) -> int | None:
    """Return the index for an error about one text; None where the text stands alone."""
    return None if isinstance(text, str) else index


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
