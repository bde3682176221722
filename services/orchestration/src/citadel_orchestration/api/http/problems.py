"""Error responses: RFC 9457 problem documents, and OpenAI's form on the OpenAI routes; each with the trace id."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from citadel_common.errors import CitadelError, InvalidInput, NotFound, from_data
from citadel_contracts.api import Problem
from citadel_contracts.errors import ErrorData, kind_of, place_of
from citadel_orchestration.api.http.errors import MethodNotAllowed, Unauthorized
from citadel_orchestration.api.http.routing import allowed_methods
from citadel_orchestration.api.http.trace import trace_id_of

OPENAI_PATHS = ("/v1/embeddings", "/v1/models")
"""Paths whose errors, and those of all paths below, are in OpenAI's form."""
PROBLEM_PATHS = frozenset({"/v1/embeddings/tasks", "/v1/embeddings/batches"})
"""Citadel's own routes among them: their errors are problem documents that hold OpenAI's form as a member."""
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_BY_STATUS = {404: NotFound.code, 405: MethodNotAllowed.code}
_NO_HEADERS: Mapping[str, str] = {}


def response_to(error: CitadelError, scope: Any, headers: Mapping[str, str] = _NO_HEADERS) -> Response:
    """Return the response to a request that failed, in the form of its route."""
    found = error.data.model_copy(update={"trace_id": trace_id_of(scope), "retry_after": _retry_after(error)})
    headers = dict(headers) | _headers(error)
    path = scope["path"]
    if path in PROBLEM_PATHS:
        return _problem(found, error.status, headers, {"error": _openai_error(found, error.status)})
    return (_openai if is_openai(path) else _problem)(found, error.status, headers)


def is_openai(path: str) -> bool:
    """Return whether errors of this path, which is not one of `PROBLEM_PATHS`, have OpenAI's form."""
    return any(path == stem or path.startswith(f"{stem}/") for stem in OPENAI_PATHS)


async def on_error(request: Request, error: Exception) -> Response:
    """Respond to a `CitadelError`, an `HTTPException`, or a defect."""
    if isinstance(error, HTTPException):
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            return _other_method(request, error)
        return response_to(_of_http(error, request), request.scope, error.headers or _NO_HEADERS)
    return response_to(error if isinstance(error, CitadelError) else unforeseen(), request.scope)


def _other_method(request: Request, error: HTTPException) -> Response:
    """Respond to a method that a path does not have, with those that it has; OPTIONS asks for nothing else."""
    allow = {"allow": ", ".join(allowed_methods(request))}
    if request.method == "OPTIONS":
        return Response(None, HTTPStatus.NO_CONTENT, allow)
    return response_to(_of_http(error, request), request.scope, allow)


def unforeseen() -> CitadelError:
    """Return the error that a caller sees for a defect, which tells only where to look."""
    return CitadelError("an internal error; the server's log has the details under this trace id")


def _of_http(error: HTTPException, request: Request) -> CitadelError:
    phrase = HTTPStatus(error.status_code).phrase
    detail = f"{phrase}: {request.method} {request.url.path}; see /docs" if error.detail == phrase else error.detail
    code = _BY_STATUS.get(error.status_code, phrase.lower().replace(" ", "_"))
    found = from_data(ErrorData(code=code, message=detail))
    found.status = error.status_code
    return found


def _problem(
    error: ErrorData, status: int, headers: dict[str, str], members: Mapping[str, Any] = _NO_HEADERS
) -> Response:
    fields = error.model_dump() | {"title": HTTPStatus(status).phrase, "status": status, "detail": error.message}
    body = Problem.model_validate(fields).model_dump(exclude_none=True) | dict(members)
    return Response(orjson.dumps(body), status, headers, media_type="application/problem+json")


def _openai(error: ErrorData, status: int, headers: dict[str, str]) -> Response:
    # OpenAI has no 422: a request that is not valid is a 400 there. A text that a backend refuses keeps its status.
    status = HTTPStatus.BAD_REQUEST if error.code == InvalidInput.code else status
    body = orjson.dumps({"error": _openai_error(error, status)})
    # OpenAI's clients repeat every 5xx and 409 unless this header says that it is in vain.
    headers["x-should-retry"] = "true" if error.retryable else "false"
    return Response(body, status, headers, media_type="application/json")


def _openai_error(error: ErrorData, status: int) -> dict[str, Any]:
    kind = _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    param = None if error.field is None else place_of(error.field, error.index)
    return error.model_dump() | {"type": kind, "param": param}


def _retry_after(error: CitadelError) -> float | None:
    """Return the seconds after which the client should retry; None if a retry cannot help."""
    if error.retry_after is not None:
        return error.retry_after
    return kind_of(error.code).retry_after if error.retryable else None


def _headers(error: CitadelError) -> dict[str, str]:
    headers = {}
    if (seconds := _retry_after(error)) is not None:
        headers["retry-after"] = str(math.ceil(seconds))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = error.challenge
    return headers
