"""What the code says to metrics; spans go through `citadel_common.telemetry.tracing`, which is off by itself."""

from typing import Protocol

from citadel_common.telemetry.names import Metric


class Metrics(Protocol):
    """Counters, gauges and histograms, declared in `names`. No method blocks or raises."""

    def count(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Adds to a counter."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Adds an observation (seconds, or a count) to a histogram."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Says what a gauge of this process stands at."""

    def render(self, accept: str) -> tuple[bytes, str]:
        """What Prometheus reads, in the form that it accepts, and its content type."""


class NullMetrics:
    """Metrics that is off."""

    def count(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Does nothing."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Does nothing."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Does nothing."""

    def render(self, accept: str) -> tuple[bytes, str]:  # noqa: ARG002
        """Nothing."""
        return b"", "text/plain; charset=utf-8"


NULL_METRICS: Metrics = NullMetrics()
