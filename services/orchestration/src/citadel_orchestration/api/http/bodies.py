"""Bodies: requests are read and validated, each bad field named; responses are JSON."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from citadel_common.errors import CitadelError
from citadel_common.validation import BadField, bad_fields, invalid_input
from citadel_contracts import json_text
from citadel_orchestration.api.http.body_memory import SCOPE_KEY, Share, parsed_size
from citadel_orchestration.api.http.errors import MalformedBody, UnsupportedMediaType

M = TypeVar("M", bound=BaseModel)
_CHARSET = re.compile(r"\bcharset\s*=\s*\"?([^\s\";]+)")
_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_NO_HEADERS: Mapping[str, str] = {}


async def read_body(request: Request, model: type[M]) -> M:
    """Return the body as an instance of `model`.

    Args:
        request: The request.
        model: The body's model.

    Raises:
        UnsupportedMediaType: The body's declared type is not JSON.
        MalformedBody: The body is not JSON in UTF-8.
        InvalidInput: The body does not fit the model.
    """
    return validated(await read_bytes(request), model)


async def read_bytes(request: Request) -> bytes:
    """Return the body, not read yet.

    Raises:
        UnsupportedMediaType: The body's declared type is not JSON.
    """
    _check_type(request.headers.get("content-type"))
    return await _read(request)


def validated(body: bytes, model: type[M]) -> M:
    """Return a body as an instance of `model`; raises as `read_body`."""
    if json_text.may_hold_extremes(body):
        decoded(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _problem_of(error) from None


async def read_json(request: Request, *, default: Any = None) -> Any:
    """Return the body, any JSON value; `default` for an empty body.

    Raises:
        UnsupportedMediaType: The body's declared type is not JSON.
        MalformedBody: The body is not JSON in UTF-8.
    """
    body = await read_bytes(request)
    if not body and default is not None:
        return default
    return decoded(body)


def decoded(text: bytes, what: str = "the body", *, above: tuple[str | int, ...] = ()) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The text.
        what: The text's name for messages.
        above: Place of the value in what the client sent.

    Raises:
        MalformedBody: It is not JSON in UTF-8.
        InvalidInput: A number in it cannot be kept as it is; the error has its place.
    """
    try:
        return json_text.loads(text)
    except json_text.NotJson as error:
        raise MalformedBody(f"{what} is not JSON in UTF-8: {error}") from None
    except json_text.UnusableValue as error:
        raise invalid_input([BadField(path=(*above, *error.path), problem=error.detail)]) from None


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
    kind, _, parameters = declared.lower().partition(";")
    kind, charset = kind.strip(), _CHARSET.search(parameters)
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(f"the body must be JSON: send Content-Type: application/json, not {kind[:80]}")
    if charset and charset[1] not in _UTF_8:
        raise UnsupportedMediaType(f"the body must be UTF-8, not {charset[1][:80]}: JSON has no other encoding")


async def _read(request: Request) -> bytes:
    """Return the whole body; most come in one piece."""
    chunks: list[bytes] = []
    share: Share = request.scope[SCOPE_KEY]
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if not message.get("more_body"):
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()  # as large as the body, which may have to wait for room
            await share.hold(parsed_size(body))
            return body.removeprefix(json_text.BOM)
        await share.hold(size)


def _problem_of(error: ValidationError) -> CitadelError:
    if error.error_count() == 1:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            return MalformedBody(f"the body is not JSON in UTF-8: {first['msg'].removeprefix('Invalid JSON: ')}")
    return invalid_input(bad_fields(error))
