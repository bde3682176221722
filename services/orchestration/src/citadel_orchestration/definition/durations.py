"""Durations as users write them: "500ms", "1.5s", "2m", "1h", or a number of seconds."""

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

PATTERN = r"^(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h)$"
_FORM = re.compile(PATTERN, re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MILLISECONDS = (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def parse_duration(value: Any) -> float:
    """Return the seconds of a written duration.

    Raises:
        ValueError: It is not a duration; the message says what one looks like.
    """
    if isinstance(value, str) and (match := _FORM.fullmatch(value)):
        return float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and _is_usable(value):
        return float(value)
    raise ValueError('must be a duration such as "500ms", "1.5s", "2m" or "1h", or a number of seconds')


def format_duration(seconds: float) -> str:
    """Return the shortest form that `parse_duration` reads as the same milliseconds."""
    milliseconds = round(seconds * 1000)
    unit, size = next(
        ((unit, size) for unit, size in _MILLISECONDS if milliseconds >= size and milliseconds % size == 0), ("ms", 1)
    )
    return f"{milliseconds // size}{unit}"


def _is_usable(value: float) -> bool:
    return 0 <= value <= 1e12 and math.isfinite(value)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": PATTERN}, {"type": "number", "minimum": 0}]}),
]
"""A field that holds seconds and is written as a duration."""
