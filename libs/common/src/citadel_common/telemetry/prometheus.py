"""Metrics for Prometheus: those of `names`, in a registry of this process."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from citadel_common.telemetry import tracing
from citadel_common.telemetry.cgroup import CgroupCollector
from citadel_common.telemetry.names import METRICS, Metric

MOST_SERIES = 200
"""Most sets of label values per metric; further ones become `other`."""
SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Variable that names the directory in which the processes of one service share their metrics."""
OTHER = "other"


class PrometheusMetrics:
    """Counts and observes; thread-safe. Observations within a sampled span carry its trace id as exemplar."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counted = [metric for metric in METRICS if not metric.is_read]
        self._metrics = {metric.name: _collector(metric, self._registry) for metric in counted}
        self._series: dict[str, dict[tuple[str, ...], Any]] = {metric.name: {} for metric in counted}
        self._lock = threading.Lock()
        self._cgroup = CgroupCollector()
        self._registry.register(self._cgroup)

    def count(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        if amount:
            self._series_of(metric, labels).inc(amount, _exemplar())

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        self._series_of(metric, labels).observe(value, _exemplar())

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set this process's gauge; gauges of processes that share their metrics are added up."""
        self._series_of(metric, labels).set(value)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the page for Prometheus, of all processes that share their metrics.

        Their cgroup is shared too and appears once.
        """
        encode: Callable[[Any], bytes]
        encode, kind = choose_encoder(accept)
        if SHARED not in os.environ:
            return encode(self._registry), kind
        shared = CollectorRegistry()
        shared.register(_SharedMetrics())
        shared.register(self._cgroup)
        return encode(shared), kind

    @property
    def registry(self) -> CollectorRegistry:
        """Return the registry that a metrics server reads."""
        return self._registry

    def _series_of(self, metric: Metric, labels: dict[str, str]) -> Any:
        values = tuple(labels[name] for name in metric.labels)
        found = self._series[metric.name].get(values)
        return self._new_series(metric, values) if found is None else found

    def _new_series(self, metric: Metric, values: tuple[str, ...]) -> Any:
        known = self._series[metric.name]
        with self._lock:
            if len(known) >= MOST_SERIES:
                values = (OTHER,) * len(metric.labels)
            if values not in known:
                collector = self._metrics[metric.name]
                known[values] = collector.labels(*values) if metric.labels else collector
            return known[values]


class _SharedMetrics(MultiProcessCollector):
    """Metrics of all processes; the files of a process that is just starting are empty and skipped."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[no-untyped-call]

    def collect(self) -> Any:
        """Yield the metrics, added up."""
        files = [str(file) for file in Path(self._path).glob("*.db") if _holds_something(file)]
        return self.merge(files, accumulate=True)  # type: ignore[no-untyped-call]


def _holds_something(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # a process has ended meanwhile
        return False


def _collector(metric: Metric, registry: CollectorRegistry) -> Any:
    if metric.kind == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=registry)
    if metric.kind == "gauge":
        return Gauge(metric.name, metric.help, metric.labels, registry=registry, multiprocess_mode="livesum")
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)


def forget_process(pid: int) -> None:
    """Remove the gauges of a process that has ended from the shared metrics; its counts stay."""
    if SHARED in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _exemplar() -> dict[str, str] | None:
    if not tracing.is_on():
        return None
    context = tracing.current()
    if not context.trace_flags.sampled:
        return None
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
