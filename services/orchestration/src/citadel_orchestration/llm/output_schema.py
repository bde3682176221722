"""JSON Schemas that answers must fit: checked when a workflow is submitted, applied in bounded time.

Schemas come from callers and answers from models; neither may make a check run long. Patterns are matched by RE2,
references stay inside the schema and are followed a bounded number of times, and nothing is fetched.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, cast

import jsonschema.exceptions
import jsonschema.validators
import orjson
import re2  # type: ignore[import-untyped]  # the package has no types
import referencing
import referencing.exceptions
from jsonschema.protocols import Validator
from referencing.jsonschema import DRAFT202012

from citadel_contracts.errors import json_pointer

MAX_SCHEMA_BYTES = 32 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_REFERENCES = 20_000
MAX_PROBLEMS = 5
_MESSAGE_LIMIT = 200
_DEFAULT_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_DATA = frozenset({"enum", "const", "default", "examples"})
_NAMED_SCHEMAS = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
_UNSUPPORTED = frozenset(
    {"patternProperties", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"}
)
"""Keywords whose work cannot be bounded: jsonschema matches them by `re`, or follows references by itself."""


class _TooMuchWork(Exception):
    """The schema refers to itself too often."""


def schema_problems(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a schema, as (JSON pointer within it, message)."""
    try:
        size = len(orjson.dumps(schema))
    except TypeError as error:
        yield "", f"is not JSON: {error}"
        return
    if size > MAX_SCHEMA_BYTES:
        yield "", f"has {size} bytes; at most {MAX_SCHEMA_BYTES} are allowed"
        return
    found = list(_walk(schema, "", 0)) or list(_against_metaschema(schema)) or list(_unresolved(schema))
    yield from found


def _walk(schema: object, pointer: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the problems of a schema and of all below it."""
    if depth > MAX_SCHEMA_DEPTH:
        yield pointer, f"is nested more than {MAX_SCHEMA_DEPTH} levels deep"
    elif isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _walk(item, f"{pointer}/{index}", depth + 1)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            yield from _walk_keyword(key, value, pointer + json_pointer([key]), depth)


def _walk_keyword(key: str, value: object, pointer: str, depth: int) -> Iterator[tuple[str, str]]:
    if key in _DATA:
        return
    if key in _UNSUPPORTED:
        yield pointer, f"{key} is not supported"
    elif key == "$ref" and not (isinstance(value, str) and value.startswith("#")):
        yield pointer, "must refer to a place in this schema, such as #/$defs/name; nothing is fetched"
    elif key == "pattern" and isinstance(value, str) and not _compiles(value):
        yield pointer, "is not a regular expression of RE2 (look-around and backreferences are not supported)"
    elif key in _NAMED_SCHEMAS and isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(item, pointer + json_pointer([name]), depth + 1)
    else:
        yield from _walk(value, pointer, depth + 1)


def _compiles(pattern: str) -> bool:
    return _search(pattern, "") is not None


def _search(pattern: str, text: str) -> bool | None:
    """Return True if a pattern occurs in a text; None if the pattern is not valid."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options).search(text) is not None
    except re2.error:
        return None


def _against_metaschema(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    dialect = _dialect(schema)
    if dialect is None:
        yield "/$schema", "names no JSON Schema draft that is known here"
        return
    for error in islice(dialect(dialect.META_SCHEMA).iter_errors(schema), MAX_PROBLEMS):
        yield json_pointer(error.absolute_path), error.message[:_MESSAGE_LIMIT]


def _dialect(schema: Mapping[str, Any]) -> type[Validator] | None:
    named = schema.get("$schema", _DEFAULT_DIALECT)
    if not isinstance(named, str):
        return None
    return jsonschema.validators.validator_for({"$schema": named}, default=cast("Any", None))


def _unresolved(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    resource = DRAFT202012.create_resource(schema)
    resolver = referencing.Registry().resolver_with_root(resource)
    for pointer, target in _references(schema, ""):
        try:
            resolver.lookup(target)
        except referencing.exceptions.Unresolvable:
            yield pointer, f"{target[:_MESSAGE_LIMIT]!r} is not in this schema"


def _references(schema: object, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _references(item, f"{pointer}/{index}")
    elif isinstance(schema, dict):
        for key, value in schema.items():
            below = pointer + json_pointer([key])
            if key == "$ref" and isinstance(value, str):
                yield below, value
            elif key not in _DATA:
                yield from _references(value, below)


class OutputSchema:
    """A schema that answers must fit; for one thread at a time.

    Args:
        schema: A schema for which `schema_problems` finds nothing.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        dialect = _dialect(schema) or jsonschema.validators.Draft202012Validator
        self._follow = dialect.VALIDATORS["$ref"]
        self._followed = 0
        own = {"$ref": self._ref, "pattern": _pattern, "uniqueItems": _unique_items}
        kind = jsonschema.validators.extend(dialect, own)  # type: ignore[no-untyped-call]
        self._validator = kind(schema, registry=referencing.Registry())

    def problems(self, value: object) -> list[str]:
        """Return why a value does not fit, up to `MAX_PROBLEMS` reasons; empty if it fits."""
        self._followed = 0
        try:
            return [_described(error) for error in islice(self._validator.iter_errors(value), MAX_PROBLEMS)]
        except (_TooMuchWork, RecursionError):
            return ["it is nested too deeply to be checked against the schema"]

    def _ref(self, validator: Any, target: str, instance: object, schema: Any) -> Iterator[Any]:
        self._followed += 1
        if self._followed > MAX_REFERENCES:
            raise _TooMuchWork
        yield from self._follow(validator, target, instance, schema)


def _described(error: jsonschema.exceptions.ValidationError) -> str:
    return f"{error.json_path[:_MESSAGE_LIMIT]}: {error.message[-_MESSAGE_LIMIT:]}"


def _pattern(validator: Any, pattern: str, instance: object, schema: object) -> Iterator[Any]:
    del validator, schema
    if isinstance(instance, str) and not _search(pattern, instance):
        yield jsonschema.exceptions.ValidationError(f"does not match {pattern!r}")


def _unique_items(validator: Any, wanted: object, instance: object, schema: object) -> Iterator[Any]:
    """Compare items by their canonical JSON, so that long lists take linear time."""
    del validator, schema
    if not wanted or not isinstance(instance, list):
        return
    distinct = {orjson.dumps(item, option=orjson.OPT_SORT_KEYS) for item in instance}
    if len(distinct) < len(instance):
        yield jsonschema.exceptions.ValidationError("has items that are not unique")
