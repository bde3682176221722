"""Metrics of the process's own cgroup, read from the kernel at each scrape."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from citadel_common.system import cgroup
from citadel_common.system.cgroup import Cgroup
from citadel_common.telemetry import names
from citadel_common.telemetry.names import METRICS, Metric

Sample = tuple[Metric, tuple[str, ...], float]
"""A metric, the values of its labels, and its value."""
_UNLIMITED = 0.0
_MICROSECONDS = 1e6


class CgroupCollector(Collector):
    """Collects limits and usage of the process's cgroup; leaves out what the kernel does not report.

    Args:
        root: Directory that holds `/proc` and the mounts.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def collect(self) -> Iterator[Family]:
        """Yield the metrics of this moment."""
        group = cgroup.read(self._root)
        samples = list(_samples(group)) if group else []
        return (family for family in _families(samples) if family.samples)

    def describe(self) -> Iterable[Family]:
        """Yield the metrics that there may be, without reading anything."""
        return _families([])


def _samples(group: Cgroup) -> Iterator[Sample]:
    throttling = group.throttling or {}
    reported = (
        (names.CGROUP_CPU_LIMIT, group.cpu_limit or _UNLIMITED),
        (names.CGROUP_CPU_SECONDS, group.cpu_seconds),
        (names.CGROUP_CPU_PERIODS, throttling.get("periods")),
        (names.CGROUP_CPU_THROTTLED, throttling.get("throttled_periods")),
        (names.CGROUP_MEMORY, group.memory_current),
        (names.CGROUP_MEMORY_LIMIT, group.memory_limit or _UNLIMITED),
    )
    yield from ((metric, (), value) for metric, value in reported if value is not None)
    for resource, stalls in group.pressure.items():
        if "total" in stalls.get("some", {}):
            yield names.CGROUP_PRESSURE, (resource,), stalls["some"]["total"] / _MICROSECONDS


def _families(samples: Iterable[Sample]) -> Iterator[Family]:
    families = {metric: _family(metric) for metric in METRICS if metric.is_read}
    for metric, labels, value in samples:
        families[metric].add_metric(labels, value)
    return iter(families.values())


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.name, metric.help, labels=metric.labels)
