"""The interface through which code counts. Spans go through `citadel_common.telemetry.tracing`."""

from typing import Protocol

from citadel_common.telemetry.names import Metric


class Metrics(Protocol):
    """Counters, gauges and histograms, declared in `names`. No method blocks or raises."""

    def count(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add an observation (seconds, or a count) to a histogram."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set the value of this process's gauge."""

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the page for Prometheus in the form that it accepts, and its content type."""


class NullMetrics:
    """Metrics that are switched off."""

    def count(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Do nothing."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Do nothing."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Do nothing."""

    def render(self, accept: str) -> tuple[bytes, str]:  # noqa: ARG002
        """Return an empty page."""
        return b"", "text/plain; charset=utf-8"


NULL_METRICS: Metrics = NullMetrics()
