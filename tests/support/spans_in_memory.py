"""Tracing into memory, with the SDK that the processes use."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from citadel_common.telemetry import tracing
from citadel_common.telemetry.recording import Recorder


@contextmanager
def spans_in_memory() -> Iterator[InMemorySpanExporter]:
    """Turn tracing on for a block."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    recorder = Recorder(resource=provider.resource, sampler=provider.sampler, on_end=processor.on_end)
    tracing.install(tracing.Tracing(recorder=recorder))
    try:
        yield exporter
    finally:
        tracing.install(None)
        provider.shutdown()
