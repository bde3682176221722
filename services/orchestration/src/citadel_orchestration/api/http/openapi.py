"""The OpenAPI document: what FastAPI knows of the routes, and errors, keys, links and definitions beside it.

A route's own `responses` name what FastAPI cannot see: the errors of its work (see `errors`) and other content types.
"""

from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from citadel_orchestration.api.http.auth import OPEN_PATHS
from citadel_orchestration.api.http.problems import PROBLEM_PATHS, is_openai

Schema = dict[str, Any]
_METHODS = ("get", "post", "put", "delete")
_ANY_ROUTE = (400, 401, 403, 429, 503)
_WITH_BODY = (408, 413, 415, 422)
_SCHEMAS = "#/components/schemas/"
DEFINITION = "Definition"
"""Name of the schema of workflow definitions."""
_ERROR: Schema = {
    "type": "object",
    "required": ["message", "type", "code"],
    "properties": {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "code": {"type": "string"},
        "param": {"type": ["string", "null"]},
        "trace_id": {"type": "string"},
    },
}
_OPENAI_ERROR: Schema = {
    "type": "object",
    "description": "An error in OpenAI's form, with the members of a problem document",
    "required": ["error"],
    "properties": {"error": _ERROR},
}
_SOURCES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "run_id": (
        ("POST /v1/workflows", "$response.body#/run_id"),
        ("POST /v1/embeddings/batches", "$response.body#/run_id"),
        ("GET /v1/runs", "$response.body#/runs/0/run_id"),
    ),
    "task_id": (
        ("POST /v1/embeddings/tasks", "$response.body#/task_id"),
        ("POST /v1/cache/warm", "$response.body#/task_id"),
    ),
    "letter_id": (("GET /v1/dead-letters", "$response.body#/letters/0/id"),),
    "model": (("GET /v1/models", "$response.body#/data/0/id"),),
}
"""Path parameters: the operations whose responses hold their values, and where."""
_STEP: tuple[str, str, Schema] = (
    "GET /v1/runs/{run_id}",
    "GET /v1/runs/{run_id}/steps/{step_id}",
    {"run_id": "$request.path.run_id", "step_id": "$response.body#/steps/0/step_id"},
)
_SEARCH: tuple[str, str, Schema] = (
    "POST /v1/collections/{name}/points",
    "POST /v1/collections/{name}/search",
    {"name": "$request.path.name"},
)


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route whose work can end with these statuses of errors."""
    return {status: {"description": HTTPStatus(status).phrase} for status in statuses}


def content(kind: str, schema: Schema | None = None) -> Schema:
    """Return the entry of a response of another content type than JSON."""
    return {"content": {kind: {"schema": schema or {"type": "string"}}}}


def with_whole_document(app: FastAPI, definitions: Callable[[], Schema]) -> None:
    """Let the application serve the whole document; `definitions` returns the JSON Schema of definitions."""
    generated = app.openapi

    def document() -> Schema:
        if app.openapi_schema is None:
            found = generated()
            _complete(found, definitions())
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _complete(document: Schema, definition: Schema) -> None:
    shared = document["components"]["schemas"]
    shared |= {"OpenAIError": _OPENAI_ERROR, **_shared_of(definition)}
    keys = {"bearer": {"type": "http", "scheme": "bearer"}}
    document["components"]["securitySchemes"] = keys
    for path, operation in _operations(document):
        _add_errors(path, operation)
        if path not in OPEN_PATHS:
            operation["security"] = [{"bearer": []}]
    _add_links(document)


def _operations(document: Schema) -> Iterator[tuple[str, Schema]]:
    for path, methods in document["paths"].items():
        yield from ((path, methods[method]) for method in _METHODS if method in methods)


def _add_errors(path: str, operation: Schema) -> None:
    responses = operation["responses"]
    del responses["default"]
    for status in _statuses_of(path, operation):
        responses.setdefault(str(status), {"description": HTTPStatus(status).phrase})
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = _error_content(path)
    operation["responses"] = dict(sorted(responses.items()))


def _statuses_of(path: str, operation: Schema) -> Iterator[int]:
    if path in OPEN_PATHS:
        return
    yield from _ANY_ROUTE
    if "{" in path:
        yield 404
    if any(parameter["in"] == "query" for parameter in operation.get("parameters", ())):
        yield 422
    if "requestBody" in operation:
        yield from _WITH_BODY


def _error_content(path: str) -> Schema:
    problem, openai = ({"$ref": _SCHEMAS + name} for name in ("Problem", "OpenAIError"))
    if path in PROBLEM_PATHS:
        return {"application/problem+json": {"schema": {"allOf": [problem, openai]}}}
    if is_openai(path):
        return {"application/json": {"schema": openai}}
    return {"application/problem+json": {"schema": problem}}


def _add_links(document: Schema) -> None:
    by_name = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    for parameter, sources in _SOURCES.items():
        targets = [name for name in by_name if f"{{{parameter}" in name]
        for source, value in sources:
            for target in targets:
                _link(by_name, source, target, {parameter: value})
    for source, target, parameters in (_STEP, _SEARCH):
        _link(by_name, source, target, parameters)


def _link(by_name: Mapping[str, Schema], source: str, target: str, parameters: Schema) -> None:
    succeeded = next(found for status, found in by_name[source]["responses"].items() if status.startswith("2"))
    operation = by_name[target]["operationId"]
    name = f"{operation} by {', '.join(parameters)}"
    succeeded.setdefault("links", {})[name] = {"operationId": operation, "parameters": parameters}


def _shared_of(definition: Schema) -> dict[str, Schema]:
    """Return the definition's schema as schemas of the document."""
    whole = {name: found for name, found in definition.items() if name not in {"$schema", "$defs"}}
    shared = {f"{DEFINITION}.{name}": found for name, found in definition["$defs"].items()}
    return {name: _moved(found) for name, found in {DEFINITION: whole, **shared}.items()}


def _moved(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_moved(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _moved_reference(found) if name == "$ref" else _moved(found) for name, found in schema.items()}


def _moved_reference(reference: str) -> str:
    return f"{_SCHEMAS}{DEFINITION}" + reference.removeprefix("#").replace("/$defs/", ".")
