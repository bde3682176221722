"""All series that queries may use: Citadel's own from the modules that declare them, and a list of others."""

from collections.abc import Iterator
from typing import Any

import yaml

from citadel_common.telemetry import names
from citadel_monitoring.exporter import metrics
from tests.unit.observability.files import STACK

FOREIGN = {
    "prometheus": {"up", "ALERTS", "process_cpu_seconds_total"},
    "tempo": {
        "traces_spanmetrics_latency_bucket",
        "traces_spanmetrics_calls_total",
        "traces_service_graph_request_server_seconds_bucket",
    },
    "collector": {
        "otelcol_receiver_accepted_spans_total",
        "otelcol_receiver_refused_spans_total",
        "otelcol_exporter_sent_spans_total",
        "otelcol_exporter_send_failed_spans_total",
        "otelcol_exporter_enqueue_failed_spans_total",
        "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total",
        "otelcol_process_cpu_seconds_total",
    },
    "collector's host metrics": {
        "system_cpu_time_seconds_total",
        "system_cpu_load_average_1m",
        "system_cpu_logical_count",
        "system_memory_usage_bytes",
        "system_paging_faults_total",
        "system_paging_operations_total",
        "system_disk_io_time_seconds_total",
    },
}
SCRAPED = {"job", "instance", "service"}
"""Labels added by the scrape."""


def _series(name: str, kind: str) -> set[str]:
    return {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}


def _declared() -> Iterator[tuple[str, str, set[str] | None]]:
    """Yield name, kind and labels (None: not declared) of Citadel's metrics."""
    for metric in metrics.ALL:
        yield metric.name, metric.kind, set(metric.labels)
    for found in vars(names).values():
        if isinstance(found, str) and found.startswith("citadel_"):
            yield found, "counter" if found.endswith("_total") else "histogram", None
        elif isinstance(getattr(found, "name", None), str) and hasattr(found, "kind"):
            yield _metric(found)


def _metric(found: Any) -> tuple[str, str, set[str] | None]:
    return found.name, found.kind, set(found.labels)


def citadel() -> dict[str, set[str] | None]:
    """Return the labels of Citadel's own series."""
    return {
        series: None if labels is None else labels | SCRAPED | ({"le"} if series.endswith("_bucket") else set())
        for name, kind, labels in _declared()
        for series in _series(name, kind)
    }


def recorded() -> set[str]:
    """Return the names of recorded series."""
    groups = yaml.safe_load((STACK / "prometheus/rules/recording.yml").read_text())["groups"]
    return {rule["record"] for group in groups for rule in group["rules"]}


def known() -> set[str]:
    """Return the names of all series."""
    return set(citadel()) | recorded() | set().union(*FOREIGN.values())
