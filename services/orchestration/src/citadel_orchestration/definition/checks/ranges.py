"""Limits that are settings: durations, attempts, items, context."""

from collections.abc import Iterator
from typing import Any

from citadel_orchestration.definition.checks.drafts import Draft, DraftDefinition
from citadel_orchestration.definition.checks.json_form import json_size
from citadel_orchestration.definition.checks.problems import Path, Problems
from citadel_orchestration.definition.durations import parse_duration
from citadel_orchestration.definition.limits import DefinitionLimits


def check_ranges(definition: DraftDefinition, limits: DefinitionLimits, problems: Problems) -> None:
    """Reports what is over a limit."""
    raw, path = definition.raw, definition.path
    size = json_size(definition.context) or 0
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
    _seconds(written.get("timeout"), (*path, "timeout"), limits.max_timeout, problems)
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
    """What can be read; what cannot is reported with the fields."""
    for value in written:
        try:
            if value is not None:
                yield parse_duration(value)
        except ValueError:
            continue


def _at_most(value: Any, path: Path, limit: int, problems: Problems) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and value > limit:
        problems.add(path, "out_of_range", f"it may be {limit:,} at most")


def _get(raw: dict[str, Any], name: str, inner: str) -> Any:
    found = raw.get(name)
    return found.get(inner) if isinstance(found, dict) else None
