"""Budget, names and errors of an evaluation."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


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


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one evaluation.

    Attributes:
        seconds: CPU time of the thread, so that a busy machine fails nobody.
        steps: Visits of elements: macro iterations, comparisons, conversions.
        size: Characters and elements that may be produced in all.
    """

    seconds: float = 0.25
    steps: int = 1_000_000
    size: int = 16 * 2**20


DEFAULT_BUDGET = Budget()


class Meter:
    """The cost of one evaluation so far, against its budget."""

    __slots__ = ("_budget", "_deadline", "_size", "_steps", "_until_look")

    def __init__(self, budget: Budget = DEFAULT_BUDGET) -> None:
        self._budget = budget
        self._steps = budget.steps
        self._size = budget.size
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
        """Count a value of `size` characters or elements that is about to be made.

        Raises:
            Exhausted: That is more than the budget has left.
        """
        self._size -= size
        if self._size < 0:
            raise Exhausted(f"it makes more than {self._budget.size:,} characters and elements")
        self.spend(1 + size // 64)

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
