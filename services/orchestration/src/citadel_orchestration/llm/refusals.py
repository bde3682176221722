"""Error answers of LLM servers as the error classes of Citadel."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson

from citadel_common.errors import LlmRefused, LlmUnavailable
from citadel_contracts.errors import seconds_of_retry_after

_MESSAGE_LIMIT = 300
_PASSING = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
_NEVER_PASSING = frozenset({"insufficient_quota"})


def refusal(where: str, status: int, body: bytes, retry_after: str | None) -> LlmUnavailable | LlmRefused:
    """The error of a status other than 200.

    Args:
        where: The endpoint, for the message.
        status: HTTP status.
        body: What came with it, or its beginning.
        retry_after: Value of that header, if it came.
    """
    message, code = _words(body)
    text = f"{where} answered {status}{_of_redirect(status)}: {message or 'no reason given'}"
    passing = status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if not passing or code in _NEVER_PASSING:
        return LlmRefused(text)
    return LlmUnavailable(text, retry_after=seconds_of_retry_after(retry_after))


def error_in(content: Mapping[str, Any]) -> tuple[str, str] | None:
    """Message and code of an error inside an answer of status 200; None where there is none."""
    error = content.get("error")
    if not error:
        return None
    if isinstance(error, dict):
        return str(error.get("message") or error)[:_MESSAGE_LIMIT], str(error.get("code") or "")
    return str(error)[:_MESSAGE_LIMIT], ""


def _of_redirect(status: int) -> str:
    return " (redirects are not followed)" if 300 <= status < 400 else ""


def _words(body: bytes) -> tuple[str, str]:
    """Message and code of an error's body; none for what is not JSON, such as a proxy's page."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    if not isinstance(content, dict):
        return "", ""
    found = error_in(content)
    return found or (str(content.get("message") or content.get("detail") or "")[:_MESSAGE_LIMIT], "")
