"""Durations of the schedule: a number of seconds, or text such as "500ms", "90s", "5m", "1h", "1d"."""

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_FORM = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_LONGEST = 366 * 86400.0


def parse_duration(value: Any) -> float:
    """Seconds.

    Raises:
        ValueError: It is no duration between a millisecond and a year.
    """
    seconds = math.nan
    if isinstance(value, str) and (match := _FORM.fullmatch(value.strip())):
        seconds = float(match[1]) * _SECONDS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if not 0.001 <= seconds <= _LONGEST:
        raise ValueError('must be a duration of at most a year: seconds, or text such as "90s", "5m", "1h", "1d"')
    return seconds


def format_milliseconds(value: int) -> str:
    """The shortest text that says the same, such as `5m`."""
    unit, size = next((unit, size) for unit, size in _UNITS if value % size == 0)
    return f"{value // size}{unit}"


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""A field that holds seconds."""
