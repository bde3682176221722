"""Spans of this process. Tracing is off, and costs next to nothing, until `install` gets a recorder.

A span's context that is stored (in a message's headers, in a run's row) is a *carrier*: `traceparent` and, if there is
one, `tracestate`, as W3C Trace Context defines them.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from citadel_common.errors import CitadelError
from citadel_common.telemetry.spans import ERROR_TYPE, SpanSpec

Attributes = Mapping[str, AttributeValue | None]
"""Attributes of a span; those that are None are left out."""
Carrier = dict[str, str]
FIELDS = ("traceparent", "tracestate")
_PROPAGATOR = TraceContextTextMapPropagator()
_FAILED = Status(StatusCode.ERROR)


class Recorder(Protocol):
    """Begins spans; `citadel_common.telemetry.recording` has the implementation for the SDK."""

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
        """Begin a span."""


@dataclass(frozen=True, kw_only=True)
class Tracing:
    """The configuration of tracing.

    Attributes:
        recorder: Begins spans.
        content: Whether spans of LLM calls carry questions and answers.
        is_clogged: Returns whether a new span would be lost, so that it need not be made.
    """

    recorder: Recorder
    content: bool = False
    is_clogged: Callable[[], bool] = lambda: False


class _Process:
    installed: Tracing | None = None


def install(tracing: Tracing | None) -> None:
    """Turn tracing on; with None, turn it off."""
    _Process.installed = tracing


def is_on() -> bool:
    """Return whether this process makes spans."""
    return _Process.installed is not None


def captures_content() -> bool:
    """Return whether spans may carry questions to LLMs and their answers."""
    return _Process.installed is not None and _Process.installed.content


@contextmanager
def span(
    spec: SpanSpec,
    target: str = "",
    attributes: Attributes | None = None,
    *,
    parent: Context | None = None,
    links: Sequence[SpanContext] = (),
    passes: tuple[type[BaseException], ...] = (),
) -> Iterator[Span]:
    """Open a span around a block and make it current; an exception marks it as failed and passes through.

    Args:
        spec: Declaration of the span.
        target: The last part of its name.
        attributes: First attributes.
        parent: Result of `context_of`; the current context by default.
        links: Linked spans.
        passes: Exceptions that are not failures.
    """
    tracing = _Process.installed
    if tracing is None or (spec.nested and not is_sampled()) or tracing.is_clogged():
        yield INVALID_SPAN
        return
    begun = tracing.recorder.begin(name_of(spec, target), parent, spec.kind, _present(attributes), links)
    token = contexts.attach(trace.set_span_in_context(begun, parent))
    try:
        yield begun
    except BaseException as error:
        if not isinstance(error, passes):
            fail(begun, error)
        raise
    finally:
        contexts.detach(token)
        begun.end()


def emit(
    spec: SpanSpec,
    target: str,
    attributes: Attributes,
    *,
    context: SpanContext,
    parent: SpanContext,
    during: tuple[datetime, datetime],
    links: Sequence[SpanContext] = (),
    error: str | None = None,
) -> None:
    """Make a span that is already over, with the id and the times given.

    Args:
        spec: Declaration of the span.
        target: The last part of its name.
        attributes: Its attributes.
        context: Its own context, which has the span id.
        parent: Context of its parent; for a root, one with the trace id alone.
        during: Its start and its end.
        links: Linked spans.
        error: Its `error.type`, if it failed.
    """
    tracing = _Process.installed
    if tracing is None or not context.trace_flags.sampled or tracing.is_clogged():
        return
    began, ended = map(_nanoseconds, during)
    begun = tracing.recorder.begin(
        name_of(spec, target),
        below(parent),
        spec.kind,
        _present(attributes),
        links,
        at=began,
        span_id=context.span_id,
    )
    if error is not None:
        begun.set_attribute(ERROR_TYPE, error)
        begun.set_status(_FAILED)
    begun.end(max(began, ended))


def name_of(spec: SpanSpec, target: str) -> str:
    """Return the span's name."""
    return f"{spec.name} {target}".strip()


def fail(failed: Span, error: BaseException | str) -> None:
    """Mark a span as failed; only the class of an exception is kept, since a message may quote a text."""
    kind = error if isinstance(error, str) else error.code if isinstance(error, CitadelError) else type(error).__name__
    failed.set_attribute(ERROR_TYPE, kind)
    failed.set_status(_FAILED)


def link(span: Span, other: SpanContext) -> None:
    """Link a span to another one; an invalid context is left out."""
    if other.is_valid:
        span.add_link(other)


def current() -> SpanContext:
    """Return the context of the current span; an invalid one if there is no span."""
    return trace.get_current_span().get_span_context()


def current_span() -> Span:
    """Return the current span; one that records nothing if there is no span."""
    return trace.get_current_span()


def is_sampled() -> bool:
    """Return whether there is a current span that will be exported."""
    return current().trace_flags.sampled


def carrier() -> Carrier:
    """Return the carrier of the current context; empty if there is no span."""
    written: Carrier = {}
    if _Process.installed is not None:
        _PROPAGATOR.inject(written)
    return written


def carrier_of(context: SpanContext) -> Carrier:
    """Return the carrier of a span's context."""
    written: Carrier = {}
    _PROPAGATOR.inject(written, trace.set_span_in_context(NonRecordingSpan(context), Context()))
    return written


def carrier_in(written: Any) -> Carrier:
    """Return the carrier in a message's headers, which may hold anything."""
    return {name: value for name in FIELDS if isinstance(value := _get(written, name), str)}


def context_of(written: Any) -> Context:
    """Return the context of a carrier, without anything of the current one; empty if the carrier is invalid."""
    return _PROPAGATOR.extract(carrier_in(written), Context())


def span_context_of(written: Any) -> SpanContext:
    """Return the span context of a carrier; an invalid one if it has none."""
    return trace.get_current_span(context_of(written)).get_span_context()


def trace_id_in(written: Any) -> str | None:
    """Return the trace id of a carrier, in hex; None if it has none."""
    context = span_context_of(written)
    return f"{context.trace_id:032x}" if context.is_valid else None


def sibling(of: SpanContext, *identity: object) -> SpanContext:
    """Return a context in the same trace whose span id follows from `identity` alone, so that every process agrees."""
    digest = hashlib.blake2b("\0".join(map(str, identity)).encode(), digest_size=8).digest()
    return SpanContext(
        of.trace_id,
        int.from_bytes(digest, "big") or 1,
        is_remote=True,
        trace_flags=of.trace_flags,
        trace_state=of.trace_state,
    )


def with_span_id(of: SpanContext, span_id: str) -> SpanContext:
    """Return the context of the span with that hexadecimal id in the same trace; invalid if it is not an id."""
    try:
        number = int(span_id, 16)
    except ValueError:
        number = 0
    return SpanContext(of.trace_id, number, is_remote=True, trace_flags=of.trace_flags, trace_state=of.trace_state)


def below(parent: SpanContext) -> Context:
    """Return the context in which new spans are children of that one."""
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


@contextmanager
def within(parent: SpanContext | None) -> Iterator[None]:
    """Make spans in the block children of that context, or of none."""
    if _Process.installed is None:
        yield
        return
    token = contexts.attach(Context() if parent is None else below(parent))
    try:
        yield
    finally:
        contexts.detach(token)


def continuing(written: Any) -> AbstractContextManager[None]:
    """Make spans in the block part of a carrier's trace; without a trace in it, nothing changes."""
    context = span_context_of(written)
    return within(context) if context.is_valid else nullcontext()


def _get(written: Any, name: str) -> Any:
    return written.get(name) if isinstance(written, Mapping) else None


def _present(attributes: Attributes | None) -> dict[str, AttributeValue]:
    return {name: value for name, value in (attributes or {}).items() if value is not None}


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1000
