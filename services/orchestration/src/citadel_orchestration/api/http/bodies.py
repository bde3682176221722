"""Request bodies: read once, checked strictly, each bad field named."""

from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from citadel_common.errors import CitadelError
from citadel_common.validation import bad_fields, invalid_input
from citadel_orchestration.api.http.errors import MalformedBody, UnsupportedMediaType

M = TypeVar("M", bound=BaseModel)


def _as_it_is(error: CitadelError, _: bytes) -> CitadelError:
    return error


async def read_body(
    request: Request, model: type[M], *, explain: Callable[[CitadelError, bytes], CitadelError] = _as_it_is
) -> M:
    """The body as `model`.

    Args:
        request: The request.
        model: What the body should be.
        explain: Gives a better error for a body than `InvalidInput`, where it knows one.

    Raises:
        UnsupportedMediaType: The body is declared to be something else than JSON.
        MalformedBody: It is not JSON, or not UTF-8.
        InvalidInput: It is not what `model` asks for.
    """
    _check_type(request.headers.get("content-type"))
    body = await _read(request)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _what_is_wrong(error, explain, body) from None


async def read_json(request: Request, *, default: Any = None) -> Any:
    """The body as any JSON value; `default` for an empty one.

    Raises:
        UnsupportedMediaType: The body is declared to be something else than JSON.
        MalformedBody: It is not JSON, or not UTF-8.
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
    """The OpenAPI entry of a body that `read_body` reads."""
    schema = model.model_json_schema()
    content = {"application/json": {"schema": _in_place(schema, schema.pop("$defs", {}))}}
    return {"requestBody": {"required": True, "content": content}}


def _in_place(schema: Any, shared: dict[str, Any]) -> Any:
    """The schema with what it refers to in place: its references would not lead anywhere in the whole document."""
    if isinstance(schema, list):
        return [_in_place(member, shared) for member in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        return _in_place(shared[reference.rpartition("/")[2]], shared)
    return {name: _in_place(found, shared) for name, found in schema.items()}


def _check_type(declared: str | None) -> None:
    if declared is None or declared == "application/json":
        return
    kind = declared.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(f"the body must be JSON: send Content-Type: application/json, not {kind[:80]}")


async def _read(request: Request) -> bytes:
    """All of the body; most come in one piece."""
    chunks = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _what_is_wrong(
    error: ValidationError, explain: Callable[[CitadelError, bytes], CitadelError], body: bytes
) -> CitadelError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return MalformedBody(f"the body is not JSON in UTF-8: {first['msg'].removeprefix('Invalid JSON: ')}")
    return explain(invalid_input(bad_fields(error)), body)
