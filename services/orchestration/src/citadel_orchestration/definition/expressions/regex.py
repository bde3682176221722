"""Matching in linear time, by RE2."""

import functools
from typing import Any

import re2  # type: ignore[import-untyped]  # the package has no types

from citadel_orchestration.definition.expressions.budget import Meter
from citadel_orchestration.definition.expressions.failures import Failed

MAX_PATTERN = 1000
MAX_MEMORY = 2**20
MAX_WORK = 32 * 2**20
"""Characters times instructions of the compiled pattern: a few tenths of a second."""


def matches(text: str, pattern: str, meter: Meter) -> bool:
    """Whether the pattern is found in the text."""
    compiled = _compiled(pattern)
    work = len(text) * int(compiled.programsize)
    if work > MAX_WORK:
        raise Failed("the text is too long for this pattern")
    meter.spend(1 + work // 1024)
    try:
        return compiled.search(text) is not None
    except UnicodeEncodeError:
        raise Failed("the text holds half of a surrogate pair") from None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    if len(pattern) > MAX_PATTERN:
        raise Failed(f"a pattern may have {MAX_PATTERN} characters at most")
    try:
        return re2.compile(pattern, _options())
    except (re2.error, UnicodeEncodeError):
        raise Failed("the pattern is not valid in RE2's syntax, or too large") from None


@functools.cache
def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    return options
