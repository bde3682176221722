"""Marks inside a text that decide how the double treats it."""

import re
from collections.abc import Mapping
from typing import Final

from tests.doubles.ollama.vectors import FLAW_MODES, Flaw

# refusals end the whole request, as in Ollama; flaws touch the one vector; hang and dead the connection
REFUSALS: Final = frozenset({"nan", "runner400", "runner400_once", "too_long400", "error500", "busy503"})
CONNECTION: Final = frozenset({"hang", "dead"})
FLAWS: Final = FLAW_MODES - {Flaw.NAN.value}
DEFAULT_MARKERS: Final[Mapping[str, str]] = {
    f"[[{action}]]": action for action in sorted(REFUSALS | CONNECTION | FLAWS)
}
MAX_REMEMBERED: Final = 10_000


class Markers:
    """Finder of marks in texts; it remembers the texts that have failed once."""

    def __init__(self, actions: Mapping[str, str]) -> None:
        unknown = set(actions.values()) - REFUSALS - CONNECTION - FLAWS
        if unknown:
            raise ValueError(f"unknown marker actions {sorted(unknown)}")
        self._actions = dict(actions)
        self._pattern = re.compile("|".join(map(re.escape, actions)) or r"(?!)")
        self._failed: set[str] = set()

    def action(self, text: str) -> str | None:
        """Return what a text's mark asks for, None without one."""
        found = self._pattern.search(text)
        if found is None:
            return None
        action = self._actions[found.group()]
        return self._once(text) if action == "runner400_once" else action

    def _once(self, text: str) -> str | None:
        if text in self._failed or len(self._failed) >= MAX_REMEMBERED:
            return None
        self._failed.add(text)
        return "runner400"
