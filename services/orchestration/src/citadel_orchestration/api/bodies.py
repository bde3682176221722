"""Request bodies: read once, checked strictly, each bad field named."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from citadel_common.validation import bad_fields
from citadel_orchestration.api.errors import InvalidBody, MalformedBody, UnsupportedMediaType

M = TypeVar("M", bound=BaseModel)
SHOWN = 5
"""Bad fields named in the message; `errors` has them all."""


async def read_body(request: Request, model: type[M]) -> M:
    """The body as `model`.

    Raises:
        UnsupportedMediaType: The body is declared to be something else than JSON.
        MalformedBody: It is not JSON, or not UTF-8.
        InvalidBody: It is not what `model` asks for.
    """
    _check_type(request.headers.get("content-type"))
    body = await request.body()
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _what_is_wrong(error) from None


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI entry of a body that `read_body` reads."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def _check_type(declared: str | None) -> None:
    if declared is None or declared == "application/json":
        return
    kind = declared.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(f"the body must be JSON: send Content-Type: application/json, not {kind[:80]}")


def _what_is_wrong(error: ValidationError) -> MalformedBody | InvalidBody:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return MalformedBody(f"the body is not JSON in UTF-8: {first['msg'].removeprefix('Invalid JSON: ')}")
    bad = bad_fields(error)
    shown = "; ".join(str(field) for field in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return InvalidBody(shown + more, {field.pointer: field.problem for field in bad})
