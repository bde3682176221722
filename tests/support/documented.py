"""The variables that the documentation names."""

import re
from functools import cache
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
_NAMES = re.compile(r"\b(?:CITADEL|OTEL)_\w+")


def is_documented(variable: str) -> bool:
    """Return True for a setting or a variable of telemetry; a `NAME` in the documentation stands for any name."""
    return any(pattern.fullmatch(variable) for pattern in _patterns())


@cache
def _patterns() -> list[re.Pattern[str]]:
    pages = (DOCS / "settings.md", DOCS / "telemetry.md")
    names = {name for page in pages for name in _NAMES.findall(page.read_text(encoding="utf-8"))}
    return [re.compile(name.replace("__NAME__", "__[A-Za-z0-9_]+?__")) for name in names]
