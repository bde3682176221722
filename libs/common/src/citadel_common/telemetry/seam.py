"""What the code says to telemetry."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Telemetry(Protocol):
    """Counters, histograms and spans by declared name. No method blocks or raises."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Adds to a counter."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Adds an observation (seconds, or a count) to a histogram."""

    def span(self, name: str, **attributes: str | float | bool) -> AbstractContextManager[None]:
        """A span around a block; an exception marks it as failed and passes through."""


class NullTelemetry:
    """Telemetry that is off."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Does nothing."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Does nothing."""

    def span(self, name: str, **attributes: str | float | bool) -> AbstractContextManager[None]:  # noqa: ARG002
        """A block without a span."""
        return nullcontext()


NULL_TELEMETRY: Telemetry = NullTelemetry()
