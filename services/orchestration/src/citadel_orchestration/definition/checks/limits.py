"""Limits: the JSON that can be stored, sent and walked, and the sizes and numbers that settings allow."""

import math
from collections.abc import Iterator
from typing import Any

from citadel_contracts.json_text import UnusableValue
from citadel_orchestration.definition.checks.draft import Draft, DraftDefinition, Path, Problems
from citadel_orchestration.definition.expressions.values import LARGEST, SMALLEST
from citadel_orchestration.definition.models import DefinitionLimits, read_duration
from citadel_orchestration.definition.sizes import json_size


def check_json(raw: Any, limits: DefinitionLimits, problems: Problems) -> bool:
    """Report what is not usable JSON; return False if no further check is safe."""
    size = _size(raw)
    if size is not None and size > limits.max_definition_bytes:  # first: shared parts make a walk too long
        problems.add((), "definition_too_large", f"a definition may have {limits.max_definition_bytes:,} bytes at most")
        return False
    found = 0
    for path, code, message in _walk(raw, limits.max_depth):
        found += 1
        problems.add(path, code, message)
        if code == "too_deep" or problems.is_full:
            return False
    return not found


def _size(value: Any) -> int | None:
    """Return the bytes of a value as JSON; None if it is nested too deeply to be written."""
    try:
        return json_size(value)
    except UnusableValue:
        return None


def _walk(raw: Any, max_depth: int) -> Iterator[tuple[Path, str, str]]:
    # only what has members waits on the stack: a list of a million numbers costs no memory
    stack: list[tuple[Path, Any]] = [((), [raw])]
    while stack:
        path, holder = stack.pop()
        members = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, value in members:
            if isinstance(value, list | dict):
                place = (*path, key)
                if len(place) > max_depth:
                    yield place[1:], "too_deep", f"lists and objects may be nested {max_depth} deep at most"
                elif isinstance(value, list):
                    stack.append((place, value))
                else:
                    yield from _bad_keys(place[1:], value)
                    stack.append((place, {name: entry for name, entry in value.items() if isinstance(name, str)}))
            elif (problem := _problem(value)) is not None:
                yield (*path, key)[1:], *problem


def _problem(value: Any) -> tuple[str, str] | None:
    """Return code and words of what is wrong with a value that has no members."""
    if isinstance(value, str):
        return None if is_text(value) else ("bad_text", "text must have no NUL and no half of a surrogate pair")
    if isinstance(value, int | float):
        problem = "bad_number", "a number must be finite, and an integer fit into 64 bits"
        return None if _is_number(value) else problem
    return None if value is None else ("not_json", f"{type(value).__name__} is not JSON")


def _bad_keys(path: Path, value: dict[Any, Any]) -> Iterator[tuple[Path, str, str]]:
    for key in value:
        if not isinstance(key, str):
            yield path, "not_json", "an object's names must be strings"
        elif not is_text(key):
            yield path, "bad_text", "a name must have no NUL and no half of a surrogate pair"


def _is_number(value: float) -> bool:
    return SMALLEST <= value <= LARGEST if isinstance(value, int) else math.isfinite(value)


def is_text(value: str) -> bool:
    """Return True if every store can hold the text."""
    if value.isascii():
        return "\0" not in value
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def check_ranges(definition: DraftDefinition, limits: DefinitionLimits, problems: Problems) -> None:
    """Report what is over a limit."""
    raw, path = definition.raw, definition.path
    size = _size(definition.context) or 0
    if size > limits.max_context_bytes:
        message = f"the context may have {limits.max_context_bytes:,} bytes at most, not {size:,}"
        problems.add((*path, "context"), "context_too_large", message)
    labels = raw.get("labels")
    if isinstance(labels, dict) and len(labels) > limits.max_labels:
        problems.add((*path, "labels"), "too_many_labels", f"there may be {limits.max_labels} labels at most")
    _seconds(raw.get("deadline"), (*path, "deadline"), limits.max_deadline, problems)
    _at_most(_get(raw, "concurrency", "limit"), (*path, "concurrency", "limit"), limits.max_concurrency, problems)
    defaults = raw.get("defaults")
    if isinstance(defaults, dict):
        _attempt(defaults, (*path, "defaults"), limits, problems)
    for step in definition.steps:
        _attempt(step.raw, step.path, limits, problems)
        _for_each(step, limits, problems)


def _attempt(written: dict[str, Any], path: Path, limits: DefinitionLimits, problems: Problems) -> None:
    for name in ("timeout", "start_timeout"):
        _seconds(written.get(name), (*path, name), limits.max_timeout, problems)
    retry = written.get("retry")
    if not isinstance(retry, dict):
        return
    where = (*path, "retry")
    _at_most(retry.get("max_attempts"), (*where, "max_attempts"), limits.max_attempts, problems)
    for name in ("delay", "max_delay"):
        _seconds(retry.get(name), (*where, name), limits.max_timeout, problems, may_be_zero=True)
    delays = list(_durations(retry.get("delay"), retry.get("max_delay")))
    if len(delays) == 2 and delays[0] > delays[1]:
        problems.add((*where, "max_delay"), "bad_retry", "max_delay must not be shorter than delay")


def _for_each(step: Draft, limits: DefinitionLimits, problems: Problems) -> None:
    written = step.for_each
    if written is None:
        return
    where = (*step.path, "for_each")
    _at_most(written.get("max_parallel"), (*where, "max_parallel"), limits.max_parallel, problems)
    items = written.get("items")
    if isinstance(items, list):
        if len(items) > limits.max_items:
            problems.add((*where, "items"), "too_many_items", f"there may be {limits.max_items:,} items at most")
    elif "items" in written and not (isinstance(items, str) and "${{" in items):
        problems.add((*where, "items"), "items_not_list", "items must be a list, or an expression that gives one")


def _seconds(written: Any, path: Path, limit: float, problems: Problems, *, may_be_zero: bool = False) -> None:
    for seconds in _durations(written):
        if seconds > limit:
            problems.add(path, "out_of_range", f"it may be {limit:g} s at most")
        elif seconds == 0 and not may_be_zero:
            problems.add(path, "out_of_range", "it must be longer than nothing")


def _durations(*written: Any) -> Iterator[float]:
    """Yield the durations that can be read; the others are reported with the fields."""
    for value in written:
        try:
            if value is not None:
                yield read_duration(value)
        except ValueError:
            continue


def _at_most(value: Any, path: Path, limit: int, problems: Problems) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and value > limit:
        problems.add(path, "out_of_range", f"it may be {limit:,} at most")


def _get(raw: dict[str, Any], name: str, inner: str) -> Any:
    found = raw.get(name)
    return found.get(inner) if isinstance(found, dict) else None
