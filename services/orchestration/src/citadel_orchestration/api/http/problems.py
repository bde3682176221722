"""Error bodies: RFC 9457 problem documents, and OpenAI's shape on the OpenAI routes; each with the trace id."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from citadel_common.errors import BackendUnavailable, CitadelError, InvalidDefinition, InvalidInput, Overloaded
from citadel_contracts.api import FieldError, Problem
from citadel_orchestration.api.http.errors import ApiError, InvalidBody
from citadel_orchestration.api.http.trace import trace_id_of

OPENAI_PATHS = frozenset({"/v1/embeddings", "/v1/models"})
_FIELD = re.compile(r"^([a-z_]+(?:\[\d+\]|\.[a-z_]+)*): (.*)$", re.DOTALL)
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_RETRY_AFTER: Mapping[type[CitadelError], int] = {Overloaded: 2, BackendUnavailable: 5}
_CODES = {404: "not_found", 405: "method_not_allowed"}


def response_to(error: CitadelError, scope: Any) -> Response:
    """The answer that says what went wrong, in the shape of the route."""
    return _openai(error, scope) if scope["path"] in OPENAI_PATHS else _problem(error, scope)


async def on_error(request: Request, error: Exception) -> Response:
    """Exception handler for `CitadelError`, `HTTPException` and what nobody foresaw."""
    if isinstance(error, HTTPException):
        return response_to(_of_http(error, request), request.scope)
    return response_to(error if isinstance(error, CitadelError) else unforeseen(), request.scope)


def unforeseen() -> CitadelError:
    """What a caller is told of a defect: nothing but where to look."""
    return CitadelError("an internal error; the server's log has the details under this trace id")


def _of_http(error: HTTPException, request: Request) -> CitadelError:
    phrase = HTTPStatus(error.status_code).phrase
    code = _CODES.get(error.status_code, phrase.lower().replace(" ", "_"))
    kind: type[ApiError] = type("HttpError", (ApiError,), {"status": error.status_code, "code": code})
    detail = f"{phrase}: {request.method} {request.url.path}; see /docs" if error.detail == phrase else error.detail
    return kind(detail, headers=error.headers)


def _problem(error: CitadelError, scope: Any) -> Response:
    document = Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.message,
        code=error.code,
        trace_id=trace_id_of(scope),
        errors=_errors_of(error),
    )
    body = orjson.dumps(document.model_dump(exclude_none=True))
    return Response(body, error.status, _headers(error), media_type="application/problem+json")


def _errors_of(error: CitadelError) -> list[FieldError]:
    if isinstance(error, InvalidDefinition):
        return [FieldError(pointer=found.pointer, detail=found.message, code=found.code) for found in error.problems]
    return [FieldError(pointer=pointer, detail=detail) for pointer, detail in fields_of(error).items()]


def _openai(error: CitadelError, scope: Any) -> Response:
    status = 400 if error.status == 422 and _is_request_error(error) else error.status
    pointer = next(iter(fields_of(error)), "")
    kind = _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body = {
        "message": error.message,
        "type": kind,
        "param": pointer.split("/")[1] if pointer else None,
        "code": error.code,
        "trace_id": trace_id_of(scope),
    }
    return Response(orjson.dumps({"error": body}), status, _headers(error), media_type="application/json")


def _is_request_error(error: CitadelError) -> bool:
    """Whether the request itself was bad, and not what a backend made of one text of it."""
    return type(error) is InvalidInput or isinstance(error, InvalidBody)


def fields_of(error: CitadelError) -> dict[str, str]:
    """The bad fields that an error names: JSON pointer → what is wrong."""
    if isinstance(error, InvalidBody):
        return error.fields
    match = _FIELD.match(error.message) if isinstance(error, InvalidInput) else None
    if match is None:
        return {}
    return {"/" + match[1].replace("[", "/").replace("]", "").replace(".", "/"): match[2]}


def _headers(error: CitadelError) -> dict[str, str]:
    headers = dict(error.headers) if isinstance(error, ApiError) else {}
    if error.transient:
        headers.setdefault("retry-after", str(_RETRY_AFTER.get(type(error), 1)))
    return headers
