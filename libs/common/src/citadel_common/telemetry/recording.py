"""Spans for the SDK's processors and exporters, at a quarter of the cost of the SDK's own.

The SDK's spans check, copy and lock each attribute, and ask the sampler about every child. All spans here come from
`tracing`, with attributes of OTLP's types, so none of that is needed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AnyValue, AttributeValue

from citadel_common.telemetry.spans import ERROR_TYPE

_SCOPE = InstrumentationScope("citadel")
_SAMPLED, _NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
_UNSET = Status(StatusCode.UNSET)


class Recorder:
    """Begins spans, and passes ended ones to `on_end`.

    Args:
        resource: The resource of the process.
        sampler: Decides about roots; about children too, unless it follows their parents.
        on_end: The hook of a span processor.
    """

    def __init__(self, *, resource: Resource, sampler: Sampler, on_end: Callable[[ReadableSpan], None]) -> None:
        self.resource = resource
        self.on_end = on_end
        self._sampler = sampler
        self._follows_parents = isinstance(sampler, ParentBased)
        self._ids = RandomIdGenerator()
        limits = SpanLimits()
        self.most_links = limits.max_links
        self.longest_text = limits.max_span_attribute_length

    def begin(
        self,
        name: str,
        parent: Context | None,
        kind: SpanKind,
        attributes: dict[str, AttributeValue],
        links: Sequence[SpanContext],
        *,
        at: int | None = None,
        span_id: int | None = None,
    ) -> Span:
        """Begin a span; it records nothing if the sampler says so.

        Args:
            name: Its name.
            parent: Context with its parent's span; the current context by default.
            kind: OpenTelemetry's kind.
            attributes: First attributes; the span keeps the dictionary.
            links: Linked spans; those above the SDK's limit are left out.
            at: Start, in nanoseconds since the epoch; now by default.
            span_id: The span's id; a random one by default.
        """
        above = trace.get_current_span(parent).get_span_context()
        context = self._context(above, parent, name, kind, attributes, span_id or self._ids.generate_span_id())
        if not context.trace_flags.sampled:
            return NonRecordingSpan(context)
        own = RecordedSpan(
            name=name,
            context=context,
            parent=above if above.is_valid else None,
            resource=self.resource,
            links=[Link(other) for other in links[: self.most_links]],
            kind=kind,
            status=_UNSET,
            start_time=time.time_ns() if at is None else at,
            instrumentation_scope=_SCOPE,
        )
        own.begin(self, attributes)
        return own

    def _context(
        self,
        above: SpanContext,
        parent: Context | None,
        name: str,
        kind: SpanKind,
        attributes: dict[str, AttributeValue],
        span_id: int,
    ) -> SpanContext:
        if above.is_valid and self._follows_parents:
            return SpanContext(above.trace_id, span_id, False, above.trace_flags, above.trace_state)
        # A parent without a span id names the trace of a root that is made after the fact.
        trace_id = above.trace_id or self._ids.generate_trace_id()
        found = self._sampler.should_sample(parent, trace_id, name, kind, attributes)
        flags = _SAMPLED if found.decision is Decision.RECORD_AND_SAMPLE else _NOT_SAMPLED
        return SpanContext(trace_id, span_id, False, flags, found.trace_state)


class RecordedSpan(ReadableSpan, Span):  # type: ignore[misc]  # their get_span_context differ in None only
    """A span that will be exported; changes after its end are lost."""

    def begin(self, recorder: Recorder, attributes: dict[str, AttributeValue]) -> None:
        """Set the recorder that is called at the span's end, and the first attributes."""
        self._recorder = recorder
        self._attributes: dict[str, Any] = attributes
        if recorder.longest_text is not None:
            self.set_attributes(dict(attributes))

    def end(self, end_time: int | None = None) -> None:
        """End the span, now or at a time in nanoseconds since the epoch."""
        if self._end_time is None:
            self._end_time = time.time_ns() if end_time is None else end_time
            self._recorder.on_end(self)

    def is_recording(self) -> bool:
        """Return whether the span has not ended."""
        return self._end_time is None

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Set an attribute; texts are cut to `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`."""
        if self._end_time is None:
            longest = self._recorder.longest_text
            self._attributes[key] = value[:longest] if isinstance(value, str) else value

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Set several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status."""
        if self._end_time is None:
            self._status = status if isinstance(status, Status) else Status(status, description)

    def update_name(self, name: str) -> None:
        """Set the name."""
        if self._end_time is None:
            self._name = name

    def add_link(self, context: SpanContext, attributes: Mapping[str, AnyValue] | None = None) -> None:
        """Add a link to another span, within the SDK's limit."""
        most = self._recorder.most_links
        if self._end_time is None and (most is None or len(self._links) < most):
            self._links = (*self._links, Link(context, attributes))

    def add_event(
        self, name: str, attributes: Mapping[str, AnyValue] | None = None, timestamp: int | None = None
    ) -> None:
        """Add an event."""
        if self._end_time is None:
            self._events = (*self._events, Event(name, attributes, timestamp))

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, AnyValue] | None = None,
        timestamp: int | None = None,  # noqa: ARG002
        escaped: bool = False,  # noqa: ARG002
    ) -> None:
        """Record the class of an exception; its message and its frames may quote a text."""
        self.set_attributes({ERROR_TYPE: type(exception).__name__} | dict(attributes or {}))
