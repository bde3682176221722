"""Budget, names and errors of an evaluation."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from citadel_common.memory import take


class Malformed(Exception):
    """The text is not a valid expression.

    Attributes:
        code: Stable name of the kind.
        reason: What is wrong.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Failed(Exception):
    """The evaluation failed on these values; an `&&` or `||` around it may still have a value."""


class Exhausted(Exception):
    """The evaluation is over its budget; no operator absorbs that."""


CLOCK_EVERY = 32
TEXT, LIST, MAP = 56, 88, 240
"""Bytes of an empty text, list and map in memory."""
REFERENCE, ELEMENT, ENTRY = 8, 40, 140
"""Bytes that a list takes for an element that was there before, and for a new number; and a map for an entry."""
_WIDE = 4
_TAKEN_AT_ONCE = 2**20


def text_bytes(length: int, *texts: str) -> int:
    """Return the most bytes that a text of so many characters takes in memory, made of characters of `texts`."""
    return TEXT + length * (1 if all(map(str.isascii, texts)) else _WIDE)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one evaluation.

    Attributes:
        seconds: CPU time of the thread, so that a busy machine fails nobody.
        steps: Visits of elements: macro iterations, comparisons, conversions.
        memory: Bytes of the texts, lists and maps that may be made in all.
    """

    seconds: float = 0.25
    steps: int = 1_000_000
    memory: int = 64 * 2**20


DEFAULT_BUDGET = Budget()


class Meter:
    """The cost of one evaluation so far, against its budget."""

    __slots__ = ("_budget", "_deadline", "_memory", "_steps", "_untaken", "_until_look")

    def __init__(self, budget: Budget = DEFAULT_BUDGET) -> None:
        self._budget = budget
        self._steps = budget.steps
        self._memory = budget.memory
        self._untaken = 0
        self._until_look = CLOCK_EVERY
        self._deadline: float | None = None

    def spend(self, steps: int = 1) -> None:
        """Count steps that are about to be done.

        Raises:
            Exhausted: That is more than the budget has left.
        """
        self._steps -= steps
        self._until_look -= steps
        if self._steps < 0:
            raise Exhausted(f"it takes more than {self._budget.steps:,} steps")
        if self._until_look <= 0:
            self._look()

    def grow(self, size: int) -> None:
        """Count the bytes of memory of a value that is about to be made.

        Raises:
            Exhausted: That is more than the budget has left.
        """
        self._memory -= size
        self._untaken += size
        if self._memory < 0:
            raise Exhausted(f"it makes texts, lists and maps of more than {self._budget.memory:,} bytes")
        if self._untaken >= _TAKEN_AT_ONCE:
            take(self._untaken)
            self._untaken = 0
        self.spend(1 + size // 512)

    def _look(self) -> None:
        """Check the time; the clock starts at the first check, since shorter evaluations do not matter."""
        now = time.thread_time()
        self._until_look = CLOCK_EVERY
        if self._deadline is None:
            self._deadline = now + self._budget.seconds
        elif now > self._deadline:
            raise Exhausted(f"it takes longer than {self._budget.seconds:g} s")


class Frame:
    """The scope, the variables that macros have bound, and the meter."""

    __slots__ = ("bound", "meter", "scope")

    def __init__(self, scope: Mapping[str, Any], meter: Meter) -> None:
        self.scope = scope
        self.meter = meter
        self.bound: dict[str, Any] = {}

    def root(self, name: str) -> Any:
        """Return the value of a name of the scope."""
        try:
            return self.scope[name]
        except KeyError:
            raise Failed(f"`{name}` is not known here") from None


Node = Callable[[Frame], Any]
"""Evaluates a part of an expression."""
