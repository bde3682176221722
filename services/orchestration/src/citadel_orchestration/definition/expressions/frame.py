"""What an evaluation has at hand."""

from collections.abc import Callable, Mapping
from typing import Any

from citadel_orchestration.definition.expressions.budget import Meter
from citadel_orchestration.definition.expressions.failures import Failed


class Frame:
    """The scope, the variables that macros have bound, and the meter."""

    __slots__ = ("bound", "meter", "scope")

    def __init__(self, scope: Mapping[str, Any], meter: Meter) -> None:
        self.scope = scope
        self.meter = meter
        self.bound: dict[str, Any] = {}

    def root(self, name: str) -> Any:
        """The value of a name of the scope."""
        try:
            return self.scope[name]
        except KeyError:
            raise Failed(f"`{name}` is not known here") from None


Node = Callable[[Frame], Any]
"""Evaluates a part of an expression."""
