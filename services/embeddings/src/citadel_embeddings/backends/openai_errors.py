"""Refusals of servers that speak the OpenAI protocol, in the words of each.

Sources: the servers' code and their users' reports: OpenAI, vLLM, TEI, llama-server, LiteLLM, SGLang, NIM, Mistral.
"""

import re
from http import HTTPStatus
from typing import Any

from citadel_common.errors import CitadelError, TextRejected, UnknownModel
from citadel_embeddings.backends.base import EmbedCall, TextTooLong, dimensions_refused
from citadel_embeddings.backends.http import Answer, json_of, server_failure

REFUSED = frozenset({400, 413, 415, 422})
"""Statuses with which servers refuse what they were sent."""
TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
_SUBJECT = r"(tokens?|context|inputs?|prompts?|sequence|text)"
_TOO_LONG = re.compile(
    rf"""context[ _-]?(length|size|window) | maximum\ context | n_ctx | max_(input|model|seq|context)_?len
    | must\ have\ (less|fewer)\ than | too\ large\ to\ process | too\ many\ (input\ )?tokens
    | {_SUBJECT}\b.{{0,80}}\b(too\ (long|large)|longer\ than|exceed\w*|maximum|at\ most|up\ to|over\ the\ limit)
    | (exceed\w*|maximum|max|longer\ than)\b.{{0,80}}\b{_SUBJECT} | (reduce|shorten)\ .{{0,40}}{_SUBJECT}""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""Words for a text that is too long, from servers that give no code."""
_LIMIT = re.compile(
    r"(?:maximum|max\b|context|less than|fewer than|limit|up to|at most|batch size|allowed)[^0-9]{0,60}?(\d{1,8})",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d{1,8}")
_ENCODING = re.compile(r"encoding.?format|base64", re.IGNORECASE)
_DIMENSIONS = re.compile(r"dimension|matryoshka", re.IGNORECASE)


def content_of(answer: Answer) -> dict[str, Any]:
    """Return the JSON object of an answer; a refusal may have another form, which counts as its message.

    Raises:
        CitadelError: The answer is neither.
    """
    try:
        return json_of(answer)
    except CitadelError:
        if answer.status_code not in REFUSED:
            raise
        return {"message": answer.content[:1000].decode("utf-8", "replace")}


def message_of(content: dict[str, Any]) -> str:
    """Return the message of a refusal: OpenAI's form, or those of vLLM, TEI and FastAPI."""
    error = next((content[name] for name in ("error", "message", "detail") if content.get(name)), "")
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)


def is_about_encoding(content: dict[str, Any]) -> bool:
    """Return whether a refusal speaks of `encoding_format`."""
    return bool(_ENCODING.search(message_of(content)))


def is_about_dimensions(content: dict[str, Any]) -> bool:
    """Return whether a refusal speaks of `dimensions`."""
    return bool(_DIMENSIONS.search(message_of(content)))


def is_about_length(status: int, content: dict[str, Any]) -> bool:
    """Return whether a text is too long; llama-server says so with 500, nginx and TEI with 413."""
    error = content.get("error")
    if isinstance(error, dict) and not TOO_LONG_CODES.isdisjoint({str(error.get("code")), str(error.get("type"))}):
        return True
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return True
    may_be = status in REFUSED or status == HTTPStatus.INTERNAL_SERVER_ERROR
    return may_be and bool(_TOO_LONG.search(message_of(content)))


def failure(answer: Answer, content: dict[str, Any], call: EmbedCall) -> CitadelError:
    """Return the error of an answer that has no vectors."""
    status, message = answer.status_code, message_of(content)
    if status == HTTPStatus.NOT_FOUND:
        return UnknownModel.at("model", f"{call.model!r} is not on the backend: {message}")
    if is_about_length(status, content):
        return _too_long(content, message, call)
    if status in REFUSED and call.dimensions is not None and is_about_dimensions(content):
        return dimensions_refused(call.model, f"refuses that: {message}")
    if status in REFUSED:
        return TextRejected(f"the backend refuses the text: {message}")
    return server_failure(answer, message)


def _too_long(content: dict[str, Any], message: str, call: EmbedCall) -> TextTooLong:
    error = TextTooLong(f"the text is longer than the model's context length ({call.model}): {message}")
    details = content["error"] if isinstance(content.get("error"), dict) else {}
    limit, tokens = details.get("n_ctx"), details.get("n_prompt_tokens")
    if isinstance(limit, int) and isinstance(tokens, int):
        error.limit, error.tokens = limit, tokens
        return error
    found = _LIMIT.search(message)
    if found is not None:
        error.limit = int(found[1])
        others = (int(number) for number in _NUMBER.findall(message))
        error.tokens = next((number for number in others if number > error.limit), None)
    return error
