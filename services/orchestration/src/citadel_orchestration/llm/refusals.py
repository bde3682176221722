"""Errors of LLM servers: what their words and codes mean, whatever the dialect.

Sources: OpenAI's list of error codes; llama.cpp's server (`exceed_context_size_error`); vLLM and FastAPI (`detail`,
`object: error`); Ollama, which quotes its runner's JSON as a string; Gemini (a list of one error); OpenRouter.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

from citadel_common.errors import CitadelError, LlmRefused, LlmUnavailable, PayloadTooLarge
from citadel_orchestration.llm.delays import delay_asked_for

MESSAGE_LIMIT = 300
_PASSING = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
_NEVER_PASSING = frozenset(
    {"insufficient_quota", "billing_not_active", "account_deactivated", "billing_hard_limit_reached"}
)
_OF_THE_REQUEST = frozenset(
    {
        "invalid_request_error", "badrequesterror", "authentication_error", "permission_error", "not_found_error",
        "invalid_api_key", "model_not_found", "content_filter", "unsupported_parameter", "unsupported_value",
    }
)  # fmt: skip
_TOO_LONG_CODES = frozenset({"exceed_context_size_error", "context_length_exceeded", "string_above_max_length"})
_TOO_LONG = re.compile(
    r"maximum context|context (?:length|size|window).{0,60}(?:exceed|too|larger|greater|limit)"
    r"|(?:exceed|too long|too large|larger than|greater than|longer than|maximum).{0,80}context (?:length|size|window)"
    r"|maximum model length|max_model_len|(?:prompt|input)(?: token count| tokens?| length)? (?:is too long|exceeds)"
    r"|inputs?` tokens|too many (?:input )?tokens|input token count",
    re.IGNORECASE | re.DOTALL,
)
_NESTED = 3
_STATUS = re.compile("[45][0-9]{2}")


@dataclass(frozen=True, kw_only=True)
class ServerError:
    """An error as the server tells it.

    Attributes:
        message: Its words; empty if it has none.
        code: Its code or type, in small letters.
        status: HTTP status that the body names; None if it names none.
        param: Parameter at fault; None if it names none.
        content: The JSON.
    """

    message: str
    code: str = ""
    status: int | None = None
    param: str | None = None
    content: object = None

    @property
    def means_too_long(self) -> bool:
        """True if the question does not fit the model's context."""
        return self.code in _TOO_LONG_CODES or _TOO_LONG.search(self.message) is not None


def read_body(body: bytes) -> ServerError:
    """Return the error in the body of a refusal; an empty one if it has no words, such as a proxy's page."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body.decode("utf-8", "replace").strip()
        return ServerError(message="" if text.startswith("<") else text)
    return error_in(content, must=True) or ServerError(message="", content=content)


def error_in(content: object, *, must: bool = False) -> ServerError | None:
    """Return the error in an answer; None if there is none.

    Args:
        content: JSON of a body or event.
        must: True if it is known to be an error, whatever its form.
    """
    if isinstance(content, list) and content:
        content = content[0]
    if not isinstance(content, dict):
        return ServerError(message=content) if must and isinstance(content, str) else None
    error = content.get("error") or _error_of_choice(content)
    if not error and (must or content.get("object") == "error" or content.get("type") == "error"):
        error = {name: value for name, value in content.items() if value} or None
    return _read(error, content) if error else None


def _error_of_choice(content: Mapping[str, Any]) -> object:
    choices = content.get("choices")
    return choices[0].get("error") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def _read(error: object, content: object, depth: int = 0) -> ServerError:
    if isinstance(error, str):
        inner = _json(error) if depth < _NESTED and error.lstrip().startswith("{") else None
        return (
            _read(inner.get("error", inner), inner, depth + 1) if inner else ServerError(message=error, content=content)
        )
    if not isinstance(error, dict):
        return ServerError(message=str(error), content=content)
    words = error.get("message") or error.get("detail") or error.get("error") or error.get("msg")
    codes = [error.get("code"), error.get("type"), error.get("status")]
    named = next((code.lower() for code in codes if isinstance(code, str) and not code.isdigit()), "")
    status = next((int(str(code)) for code in codes if _STATUS.fullmatch(str(code))), None)
    param = error.get("param") or _place(error.get("detail"))
    text, inner = str(words or error), _json(words) if isinstance(words, str) and words.startswith("{") else None
    if inner and depth < _NESTED:
        return _read(inner.get("error", inner), inner, depth + 1)
    return ServerError(
        message=text, code=named, status=status, param=param if isinstance(param, str) else None, content=content
    )


def _place(detail: object) -> str | None:
    """Return the field that pydantic finds fault with: `[{"loc": ["body", "temperature"], "msg": …}]`."""
    first = detail[0] if isinstance(detail, list) and detail else None
    place = first.get("loc") if isinstance(first, dict) else None
    return str(place[1]) if isinstance(place, list) and len(place) > 1 else None


def _json(text: str) -> dict[str, Any] | None:
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) else None


def failure(
    where: str,
    status: int,
    error: ServerError,
    headers: Mapping[str, str],
    *,
    hide: Callable[[str], str] = str,
) -> CitadelError:
    """Return what a server's error means.

    Args:
        where: Name of the endpoint, for the message.
        status: HTTP status, or what stands for it inside an answer.
        error: The error.
        headers: Headers of the response.
        hide: Takes secrets out of a text, before it is cut.
    """
    words = hide(error.message)[:MESSAGE_LIMIT] or "no reason given"
    text = f"{where} answered {status}{_of_redirect(status)}: {words}"
    if error.means_too_long and status != HTTPStatus.TOO_MANY_REQUESTS:
        return PayloadTooLarge(
            f"query: it does not fit the model's context; shorten it or ask for fewer tokens: {text}"
        )
    passing = status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if not passing or error.code in _NEVER_PASSING:
        return LlmRefused(text)
    return LlmUnavailable(text, retry_after=delay_asked_for(headers, error.content, error.message))


def failure_inside(where: str, error: ServerError, *, hide: Callable[[str], str] = str) -> CitadelError:
    """Return what an error inside an answer of status 200 means; one that blames the request is not asked again."""
    blames = error.code in _OF_THE_REQUEST
    status = error.status or (HTTPStatus.BAD_REQUEST if blames else HTTPStatus.INTERNAL_SERVER_ERROR)
    found = failure(where, status, error, {}, hide=hide)
    if not isinstance(found, LlmUnavailable):
        return found
    words = hide(error.message)[:MESSAGE_LIMIT] or "no reason given"
    return LlmUnavailable(f"{where} failed while it answered: {words}", retry_after=found.retry_after)


def _of_redirect(status: int) -> str:
    return " (redirects are not followed)" if 300 <= status < 400 else ""
