"""Errors from HTTP answers: RFC 9457 problem documents and OpenAI's error bodies."""

from typing import Any

import httpx
from pydantic import ValidationError

from citadel_client.errors import (
    CallTimedOut,
    CitadelApiError,
    ServerUnreachable,
    UnexpectedReply,
    error_class,
    facts_of,
)
from citadel_contracts.api import Problem
from citadel_contracts.errors import ErrorData, FieldError, pointer_of, seconds_of_retry_after
from citadel_contracts.outbound import is_untrusted


def from_response(response: httpx.Response) -> CitadelApiError:
    """Return the error of an answer with status 300 or above."""
    body = _json(response)
    error = _openai(body["error"]) if "error" in body else _problem(body)
    if error is None:
        return _foreign(response)
    facts = facts_of(error) | {"status": response.status_code}
    if "retryable" not in error.model_fields_set:  # an older server, or another one: the status tells
        del facts["retryable"]
    if (seconds := _retry_after(response)) is not None:
        facts["retry_after"] = seconds
    facts["trace_id"] = error.trace_id or response.headers.get("x-request-id")
    return error_class(response.status_code)(error.message, **facts)


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _problem(body: dict[str, Any]) -> ErrorData | None:
    """Return the error of a problem document; None for a body that is not one."""
    try:
        problem = Problem.model_validate(body)
        return ErrorData.model_validate(body | {"message": problem.detail})
    except ValidationError:
        return None


def _openai(error: Any) -> ErrorData | None:
    """Return the error of OpenAI's `{"message", "type", "param", "code"}`, to which Citadel adds members."""
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return None
    code = error.get("code") or error.get("type") or CitadelApiError.default_code
    given = {"field": error.get("param")} | error | {"code": code}
    try:
        found = ErrorData.model_validate(given)
    except ValidationError:
        found = ErrorData(code=str(code), message=error["message"])
    if found.errors or found.field is None:
        return found
    named = FieldError(pointer=pointer_of(found.field, found.index), detail=found.message)
    return found.model_copy(update={"errors": (named,)})


def _foreign(response: httpx.Response) -> CitadelApiError:
    """Return the error of an answer by a proxy or another server."""
    status = response.status_code
    if status in {429, 502, 503, 504} or status >= 500:
        kind = error_class(status)
        return kind(f"{response.url.host} answered HTTP {status}", status=status, retry_after=_retry_after(response))
    return UnexpectedReply(f"{response.url} is not a Citadel server: HTTP {status}", status=status)


def _retry_after(response: httpx.Response) -> float | None:
    return seconds_of_retry_after(*map(response.headers.get, ("retry-after", "date", "age")))


def from_transport(error: httpx.TransportError, base_url: str) -> CitadelApiError:
    """Return the error of a request that got no answer."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return CallTimedOut()
    if is_untrusted(error):
        return ServerUnreachable(
            f"the certificate of {base_url} is not trusted: name its authority's certificate in SSL_CERT_FILE"
        )
    if isinstance(error, httpx.ProxyError):
        return ServerUnreachable(f"the proxy does not lead to {base_url}: {error}")
    reason = "refused the connection" if isinstance(error, httpx.ConnectError) else "broke off"
    if isinstance(error, httpx.ConnectTimeout):
        reason = "did not accept the connection in time"
    return ServerUnreachable(
        f"{base_url} {reason}: is the server running? Start it with `citadel dev`, or point CITADEL_API_URL at one"
    )
