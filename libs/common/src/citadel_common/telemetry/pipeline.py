"""Export of spans to an OTLP receiver and of metrics on a port; the standard `OTEL_*` variables set it up.

A receiver that is dead, hangs or refuses costs spans, never time: one thread sends spans from a queue of fixed length,
and spans that find the queue full are dropped.
"""

import importlib.metadata
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from citadel_common.settings.common import TelemetrySettings
from citadel_common.telemetry import names, tracing
from citadel_common.telemetry.metrics import NULL_METRICS, Metrics
from citadel_common.telemetry.receiver import Exporter, span_exporter
from citadel_common.telemetry.recording import Recorder
from citadel_common.telemetry.tracing import Tracing

log = structlog.get_logger(__name__)
FLUSH = 3.0
"""Seconds that sending the remaining spans may take at the end of the process."""
SLOW = 2.0
"""Seconds of one export after which the receiver counts as failing."""
QUEUE, BATCH, DELAY = 8192, 512, 1000
"""Most spans that wait, spans per request, and milliseconds between requests; `OTEL_BSP_*` overrides them."""
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


class CountedExporter(SpanExporter):
    """A span exporter that counts, and that never raises.

    Attributes:
        taken: Spans taken from the queue so far.
        is_well: Whether the last export succeeded.
    """

    def __init__(self, exporter: Exporter, metrics: Metrics) -> None:
        self._exporter = exporter
        self._metrics = metrics
        self._since = math.inf
        self.is_well = True
        self.taken = 0

    @property
    def is_failing(self) -> bool:
        """Return whether the receiver refuses, or answers slowly."""
        return not self.is_well or time.monotonic() - self._since > SLOW

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        self._since = time.monotonic()
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.spans.export(spans)
        except Exception as error:  # noqa: BLE001  (a receiver may answer anything)
            log.debug("export_crashed", error=type(error).__name__)
        self._since = math.inf
        is_exported = result is SpanExportResult.SUCCESS
        rejected = min(self._exporter.take_rejected(), len(spans)) if is_exported else len(spans)
        self._metrics.count(names.SPANS, len(spans) - rejected, outcome="exported")
        self._metrics.count(names.SPANS, rejected, outcome="failed")
        self._tell(is_exported)
        return result

    def _tell(self, is_exported: bool) -> None:
        """Log one line when the receiver begins to fail, and one when it is well again."""
        if is_exported != self.is_well:
            self.is_well = is_exported
            if is_exported:
                log.warning("receiver_of_spans_is_back")
            else:
                log.warning("spans_not_exported", reason=self._exporter.failure())

    def shutdown(self) -> None:
        """Close the exporter, even in the middle of an attempt."""
        self._exporter.spans.shutdown()


class DroppingProcessor(BatchSpanProcessor):
    """A batch processor that drops and counts the spans that find its queue full."""

    def __init__(self, exporter: CountedExporter, metrics: Metrics) -> None:
        self._most = _number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE)
        self._batch = batch = min(self._most, _number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH))
        delay = _number("OTEL_BSP_SCHEDULE_DELAY", DELAY)
        self._counted = exporter
        self._metrics = metrics
        self._given = 0
        self._lock = threading.Lock()
        super().__init__(exporter, self._most, delay, batch)

    def is_clogged(self) -> bool:
        """Return whether a new span would be lost: the receiver fails while a batch waits, or the queue is full."""
        waiting = self._given - self._counted.taken
        is_clogged = waiting >= (self._batch if self._counted.is_failing else self._most)
        if is_clogged:
            self._metrics.count(names.SPANS, 1, outcome="dropped")
        return is_clogged

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that has ended, or drop and count it."""
        if not (span.context and span.context.trace_flags.sampled):
            return
        with self._lock:
            is_full = self._given - self._counted.taken >= self._most
            self._given += not is_full
        if is_full:
            self._metrics.count(names.SPANS, 1, outcome="dropped")
        else:
            super().on_end(span)


@contextmanager
def process_telemetry(settings: TelemetrySettings, *, service: str, serves_metrics: bool = False) -> Iterator[Metrics]:
    """Serve metrics and export traces of a process until the end of the block.

    Args:
        settings: The address that serves metrics.
        service: `service.name` is `citadel-` and this, unless `OTEL_SERVICE_NAME` names another.
        serves_metrics: Whether the process has a route for its metrics, and needs no port for them.
    """
    metrics = NULL_METRICS if not (serves_metrics or settings.metrics_port) else _counting()
    server = None if serves_metrics or not settings.metrics_port else _serve(settings, metrics)
    provider = start_tracing(service, metrics)
    try:
        yield metrics
    finally:
        if provider is not None:
            stop_tracing(provider)
        if server is not None:
            server.shutdown()
            server.server_close()


def start_tracing(service: str, metrics: Metrics = NULL_METRICS) -> TracerProvider | None:
    """Begin to export spans, if the environment names a receiver."""
    exporter = span_exporter()
    if exporter is None:
        return None
    provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
    processor = DroppingProcessor(CountedExporter(exporter, metrics), metrics)
    provider.add_span_processor(processor)
    recorder = Recorder(resource=provider.resource, sampler=provider.sampler, on_end=processor.on_end)
    content = os.environ.get(CAPTURE, "").lower() == "true"
    tracing.install(Tracing(recorder=recorder, content=content, is_clogged=processor.is_clogged))
    return provider


def stop_tracing(provider: TracerProvider) -> None:
    """Send what is left, within `FLUSH` seconds."""
    tracing.install(None)
    end = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
    end.start()
    end.join(FLUSH)


def _resource(service: str) -> Resource:
    """Return the resource of the process; the environment overrides what the process knows."""
    known: dict[str, Any] = {
        "service.name": f"citadel-{service}",
        "service.namespace": "citadel",
        "service.version": importlib.metadata.version("citadel-common"),
        "process.pid": os.getpid(),
    }
    given: dict[str, Any] = dict(Resource.create().attributes)
    return Resource.create(known | {name: value for name, value in given.items() if not _is_default(name, value)})


def _is_default(name: str, value: Any) -> bool:
    return name == "service.name" and str(value).startswith("unknown_service")


def _number(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() and int(value) > 0 else default


def _counting() -> Metrics:
    """Return Prometheus metrics. The import is late: the shared directory must be named before it."""
    from citadel_common.telemetry.prometheus import PrometheusMetrics

    return PrometheusMetrics()


def _serve(settings: TelemetrySettings, metrics: Any) -> Any:
    """Serve metrics on the process's own port; a port in use costs the metrics, not the process."""
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(settings.metrics_port, settings.metrics_host, metrics.registry)
    except OSError as error:
        log.error("metrics_not_served", port=settings.metrics_port, error=error.strerror or str(error))
        return None
    return server
