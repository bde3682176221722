"""Whether a value is JSON that can be stored, sent and walked: checked before anything else looks at it."""

import math
from collections.abc import Iterator
from typing import Any

import orjson

from citadel_orchestration.definition.checks.problems import Path, Problems
from citadel_orchestration.definition.expressions.arithmetic import LARGEST, SMALLEST
from citadel_orchestration.definition.limits import DefinitionLimits


def check_json(raw: Any, limits: DefinitionLimits, problems: Problems) -> bool:
    """Reports what is no usable JSON; False where nothing else should be looked at."""
    found = 0
    for path, code, message in _walk(raw, limits.max_depth):
        found += 1
        problems.add(path, code, message)
        if code == "too_deep" or problems.is_full:
            return False
    if found:
        return False
    size = json_size(raw)
    if size is not None and size <= limits.max_definition_bytes:
        return True
    problems.add((), "definition_too_large", f"a definition may have {limits.max_definition_bytes:,} bytes at most")
    return False


def json_size(value: Any) -> int | None:
    """Bytes as compact JSON; None where it has no JSON form."""
    try:
        return len(orjson.dumps(value))
    except TypeError:
        return None


def _walk(raw: Any, max_depth: int) -> Iterator[tuple[Path, str, str]]:
    stack: list[tuple[Path, Any]] = [((), raw)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, str):
            if not is_text(value):
                yield path, "bad_text", "text must have no NUL and no half of a surrogate pair"
        elif isinstance(value, int | float):
            if not _is_number(value):
                yield path, "bad_number", "a number must be finite, and an integer fit into 64 bits"
        elif value is None:
            continue
        elif len(path) >= max_depth:
            yield path, "too_deep", f"lists and objects may be nested {max_depth} deep at most"
        elif isinstance(value, list):
            stack.extend(((*path, index), element) for index, element in enumerate(value))
        elif isinstance(value, dict):
            yield from _bad_keys(path, value)
            stack.extend(((*path, key), entry) for key, entry in value.items() if isinstance(key, str))
        else:
            yield path, "not_json", f"{type(value).__name__} is no JSON"


def _bad_keys(path: Path, value: dict[Any, Any]) -> Iterator[tuple[Path, str, str]]:
    for key in value:
        if not isinstance(key, str):
            yield path, "not_json", "an object's names must be strings"
        elif not is_text(key):
            yield path, "bad_text", "a name must have no NUL and no half of a surrogate pair"


def _is_number(value: float) -> bool:
    return SMALLEST <= value <= LARGEST if isinstance(value, int) else math.isfinite(value)


def is_text(value: str) -> bool:
    """Whether every store can hold it."""
    if value.isascii():
        return "\0" not in value
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
