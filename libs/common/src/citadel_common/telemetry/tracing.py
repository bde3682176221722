"""Spans of this process: nothing, at next to no cost, until `install` is called with a recorder.

Where a span's context is written down (a message's headers, a run's row), it is a *carrier*: `traceparent` and, where
there is one, `tracestate`, as W3C Trace Context has them.
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
"""Of a span; those that are None are left out."""
Carrier = dict[str, str]
FIELDS = ("traceparent", "tracestate")
_PROPAGATOR = TraceContextTextMapPropagator()
_FAILED = Status(StatusCode.ERROR)


class Recorder(Protocol):
    """What begins spans; `citadel_common.telemetry.recording` has the one that works with the SDK."""

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
        """A span that has begun."""


@dataclass(frozen=True, kw_only=True)
class Tracing:
    """What spans are made with.

    Attributes:
        recorder: Begins them.
        content: Whether spans of LLM calls carry questions and answers.
        is_clogged: Whether a span that is made now would be lost, so that making it can be spared.
    """

    recorder: Recorder
    content: bool = False
    is_clogged: Callable[[], bool] = lambda: False


class _Process:
    installed: Tracing | None = None


def install(tracing: Tracing | None) -> None:
    """Turns tracing on, or with None off."""
    _Process.installed = tracing


def is_on() -> bool:
    """Whether this process makes spans."""
    return _Process.installed is not None


def captures_content() -> bool:
    """Whether spans may carry questions to LLMs and their answers."""
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
    """A span around a block, the current one in it; an exception marks it as failed and passes through.

    Args:
        spec: What it is.
        target: The last part of its name.
        attributes: Those known at the beginning.
        parent: From `context_of`; the current context by default.
        links: Other spans that have to do with it.
        passes: Exceptions that are no failures.
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
    """Makes a span that is over already, with the id and the times that it was given elsewhere.

    Args:
        spec: What it is.
        target: The last part of its name.
        attributes: Of it.
        context: Its own, of which the span id is taken.
        parent: That of its parent.
        during: When it began, and when it ended.
        links: Other spans that have to do with it.
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
    """The span's name."""
    return f"{spec.name} {target}".strip()


def fail(failed: Span, error: BaseException | str) -> None:
    """Marks a span as failed; of an exception only its kind is told, for a message may quote a text."""
    kind = error if isinstance(error, str) else error.code if isinstance(error, CitadelError) else type(error).__name__
    failed.set_attribute(ERROR_TYPE, kind)
    failed.set_status(_FAILED)


def link(span: Span, other: SpanContext) -> None:
    """Links a span that has begun with another; one that is not valid is left out."""
    if other.is_valid:
        span.add_link(other)


def current() -> SpanContext:
    """The context of the current span; one that is not valid where there is none."""
    return trace.get_current_span().get_span_context()


def current_span() -> Span:
    """The current span; one that takes nothing where there is none."""
    return trace.get_current_span()


def is_sampled() -> bool:
    """Whether there is a current span that will be exported."""
    return current().trace_flags.sampled


def carrier() -> Carrier:
    """The current context, written down; empty where there is none."""
    written: Carrier = {}
    if _Process.installed is not None:
        _PROPAGATOR.inject(written)
    return written


def carrier_of(context: SpanContext) -> Carrier:
    """A span's context, written down."""
    written: Carrier = {}
    _PROPAGATOR.inject(written, trace.set_span_in_context(NonRecordingSpan(context), Context()))
    return written


def carrier_in(written: Any) -> Carrier:
    """What of a message's headers, which may say anything, is a carrier."""
    return {name: value for name in FIELDS if isinstance(value := _get(written, name), str)}


def context_of(written: Any) -> Context:
    """The context that was written down, without anything of the current one; empty for what is no carrier."""
    return _PROPAGATOR.extract(carrier_in(written), Context())


def span_context_of(written: Any) -> SpanContext:
    """The span's context in a carrier; one that is not valid where there is none."""
    return trace.get_current_span(context_of(written)).get_span_context()


def sibling(of: SpanContext, *identity: object) -> SpanContext:
    """The context of a span in the same trace, with the id that belongs to that identity in every process."""
    digest = hashlib.blake2b("\0".join(map(str, identity)).encode(), digest_size=8).digest()
    return SpanContext(
        of.trace_id,
        int.from_bytes(digest, "big") or 1,
        is_remote=True,
        trace_flags=of.trace_flags,
        trace_state=of.trace_state,
    )


def with_span_id(of: SpanContext, span_id: str) -> SpanContext:
    """The context of the span with that id, in hex, in the same trace; not valid for what is no id."""
    try:
        number = int(span_id, 16)
    except ValueError:
        number = 0
    return SpanContext(of.trace_id, number, is_remote=True, trace_flags=of.trace_flags, trace_state=of.trace_state)


def below(parent: SpanContext) -> Context:
    """The context in which spans are children of that one."""
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


@contextmanager
def within(parent: SpanContext | None) -> Iterator[None]:
    """A block whose spans are children of that one, or of none."""
    if _Process.installed is None:
        yield
        return
    token = contexts.attach(Context() if parent is None else below(parent))
    try:
        yield
    finally:
        contexts.detach(token)


def continuing(written: Any) -> AbstractContextManager[None]:
    """A block whose spans are part of the trace in a carrier; where that has none, all stays as it is."""
    context = span_context_of(written)
    return within(context) if context.is_valid else nullcontext()


def _get(written: Any, name: str) -> Any:
    return written.get(name) if isinstance(written, Mapping) else None


def _present(attributes: Attributes | None) -> dict[str, AttributeValue]:
    return {name: value for name, value in (attributes or {}).items() if value is not None}


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1000
