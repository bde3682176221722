"""Tracing into memory, with the SDK that the processes use."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from citadel_common.telemetry import tracing
from citadel_common.telemetry.pipeline import GivenIds


@contextmanager
def spans_in_memory() -> Iterator[InMemorySpanExporter]:
    """Turn tracing on for a block."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, id_generator=GivenIds())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.install(tracing.Tracing(tracer=provider.get_tracer("test")))
    try:
        yield exporter
    finally:
        tracing.install(None)
        provider.shutdown()
