"""Durations as people write them: a number of seconds, or text such as "500ms", "1.5s", "2m", "1h" or "1d"."""

import re
from collections.abc import Collection, Sequence
from typing import Any

SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Seconds of each unit; text without a unit is in seconds."""
NUMBER = r"\d{1,12}(?:\.\d{1,9})?"
_FORM = re.compile(rf"({NUMBER})([a-z]*)", re.ASCII)
_MOST = 1e12


def parse_duration(value: Any, *, units: Collection[str]) -> float | None:
    """Return the seconds of a written duration, which may be 0; None if `value` is not a duration in these units."""
    if isinstance(value, str):
        match = _FORM.fullmatch(value)
        return float(match[1]) * SECONDS[match[2]] if match and match[2] in units else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= _MOST else None  # NaN and infinity fail the comparison


def format_duration(milliseconds: int, *, units: Sequence[str]) -> str:
    """Return the shortest text for a duration, with the first of the units that divides it, such as `5m`."""
    for unit in units:
        size = round(SECONDS[unit] * 1000)
        if milliseconds >= size and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
