"""Errors out of HTTP answers: RFC 9457 problem documents and OpenAI's error bodies."""

import email.utils
import re
import time
from typing import Any

import httpx
from pydantic import ValidationError

from citadel_client.errors import (
    CallTimedOut,
    CitadelApiError,
    ServerUnreachable,
    UnexpectedReply,
    error_class,
)
from citadel_contracts.api import FieldError, Problem

ITEM = re.compile(r"(?P<field>\w+)\[(?P<index>\d+)\]: ")
"""How a message names one item of a list; OpenAI's body has no other place for it."""


def from_response(response: httpx.Response) -> CitadelApiError:
    """The error that an answer of status 300 and above stands for."""
    body = _json(response)
    facts = _openai(body["error"]) if "error" in body else _problem(body)
    if not facts:
        return _foreign(response)
    facts.setdefault("trace_id", response.headers.get("x-request-id"))
    kind = error_class(response.status_code)
    return kind(status=response.status_code, retry_after=_retry_after(response), **facts)


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _problem(body: dict[str, Any]) -> dict[str, Any]:
    try:
        problem = Problem.model_validate(body)
    except ValidationError:
        return {}
    facts: dict[str, Any] = {"message": problem.detail, "code": problem.code, "errors": tuple(problem.errors)}
    return facts | ({"trace_id": problem.trace_id} if problem.trace_id else {})


def _openai(error: Any) -> dict[str, Any]:
    """OpenAI's `{"message", "type", "param", "code"}`; `param` names one field, `errors` may name several."""
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return {}
    facts: dict[str, Any] = {"message": error["message"], "code": error.get("code") or error.get("type")}
    facts["errors"] = _fields(error)
    trace_id = error.get("trace_id")
    return facts | ({"trace_id": trace_id} if trace_id else {})


def _fields(error: dict[str, Any]) -> tuple[FieldError, ...]:
    try:
        named = tuple(FieldError.model_validate(field) for field in error.get("errors") or ())
    except (ValidationError, TypeError):
        named = ()
    param = error.get("param")
    if named or not isinstance(param, str) or not param:
        return named
    item = ITEM.match(error["message"])
    pointer = f"/{param}/{item['index']}" if item and item["field"] == param else f"/{param}"
    return (FieldError(pointer=pointer, detail=error["message"]),)


def _foreign(response: httpx.Response) -> CitadelApiError:
    """Something between, or another server."""
    status = response.status_code
    if status in {429, 502, 503, 504} or status >= 500:
        kind = error_class(status)
        return kind(f"{response.url.host} answered HTTP {status}", status=status, retry_after=_retry_after(response))
    return UnexpectedReply(f"{response.url} is not a Citadel server: HTTP {status}", status=status)


def _retry_after(response: httpx.Response) -> float | None:
    """`Retry-After` in seconds: a number, or a date."""
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        return _until(value)


def _until(date: str) -> float | None:
    try:
        moment = email.utils.parsedate_to_datetime(date)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def from_transport(error: httpx.TransportError, base_url: str) -> CitadelApiError:
    """The error that a failed exchange stands for."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return CallTimedOut()
    reason = "refused the connection" if isinstance(error, httpx.ConnectError) else "broke off"
    if isinstance(error, httpx.ConnectTimeout):
        reason = "did not accept the connection in time"
    return ServerUnreachable(
        f"{base_url} {reason}: is the server running? Start it with `citadel dev`, or point CITADEL_API_URL at one"
    )
