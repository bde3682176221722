"""Bodies: requests are read and validated, each bad field named; responses are JSON."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from citadel_common.errors import CitadelError
from citadel_common.validation import bad_fields, invalid_input
from citadel_orchestration.api.http.errors import MalformedBody, UnsupportedMediaType

M = TypeVar("M", bound=BaseModel)
_NO_HEADERS: Mapping[str, str] = {}
Explain = Callable[[CitadelError, bytes], CitadelError]


async def read_body(request: Request, model: type[M], *, explain: Explain = lambda error, _: error) -> M:
    """Return the body as an instance of `model`.

    Args:
        request: The request.
        model: The body's model.
        explain: Returns the error to raise for an invalid body, given the error found and the body.

    Raises:
        UnsupportedMediaType: The body's declared type is not JSON.
        MalformedBody: The body is not JSON in UTF-8.
        InvalidInput: The body does not fit the model.
    """
    _check_type(request.headers.get("content-type"))
    body = await _read(request)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _problem_of(error, explain, body) from None


async def read_json(request: Request, *, default: Any = None) -> Any:
    """Return the body, any JSON value; `default` for an empty body.

    Raises:
        UnsupportedMediaType: The body's declared type is not JSON.
        MalformedBody: The body is not JSON in UTF-8.
    """
    _check_type(request.headers.get("content-type"))
    body = await _read(request)
    if not body and default is not None:
        return default
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON in UTF-8: {error}") from None


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI entry of a body that `read_body` reads."""
    schema = model.model_json_schema()
    content = {"application/json": {"schema": _inlined(schema, schema.pop("$defs", {}))}}
    return {"requestBody": {"required": True, "content": content}}


def json_response(
    body: BaseModel | bytes,
    status: int = 200,
    *,
    location: str | None = None,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> Response:
    """Return a JSON response; `location` is the path of what the request has created, below the base path."""
    content = body if isinstance(body, bytes) else body.model_dump_json()
    headers = dict(headers) | ({"location": location} if location else {})
    return Response(content, status, headers, media_type="application/json")


def _inlined(schema: Any, shared: dict[str, Any]) -> Any:
    """Replace references by what they refer to: inside the OpenAPI document they would lead nowhere."""
    if isinstance(schema, list):
        return [_inlined(member, shared) for member in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        return _inlined(shared[reference.rpartition("/")[2]], shared)
    return {name: _inlined(found, shared) for name, found in schema.items()}


def _check_type(declared: str | None) -> None:
    if declared is None or declared == "application/json":
        return
    kind = declared.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(f"the body must be JSON: send Content-Type: application/json, not {kind[:80]}")


async def _read(request: Request) -> bytes:
    """Return the whole body; most come in one piece."""
    chunks = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _problem_of(error: ValidationError, explain: Explain, body: bytes) -> CitadelError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return MalformedBody(f"the body is not JSON in UTF-8: {first['msg'].removeprefix('Invalid JSON: ')}")
    return explain(invalid_input(bad_fields(error)), body)
