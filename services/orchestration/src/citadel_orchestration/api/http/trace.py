"""The trace of a request: the caller's, given by a W3C `traceparent` header, or a new one.

With tracing off, or left out by its route's ratio, a request still has ids, so that its log lines can be found.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from opentelemetry.trace import INVALID_SPAN_ID, Span, SpanContext, TraceFlags

from citadel_common.telemetry import spans, tracing
from citadel_orchestration.api.http.sampling import UNTRACED, RouteSampling

_TRACEPARENT = re.compile(rb"^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?$")
_NO_TRACE = b"0" * 32
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
LONGEST_PATH = 200
"""Characters of a path that spans and logs show."""
SCOPE_KEY = "citadel.trace_id"
"""Key of the trace id in the ASGI scope."""
LEFT_OUT_KEY = "citadel.left_out_since"
"""Key of the ASGI scope for the start of a request whose route's ratio left it out."""


class Trace(NamedTuple):
    """Trace id, span id and flags of a request, in lower-case hex."""

    trace_id: str
    span_id: str
    flags: str

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the response headers that carry the ids."""
        response = f"00-{self.trace_id}-{self.span_id}-{self.flags}"
        return [(b"x-request-id", self.trace_id.encode()), (b"traceresponse", response.encode())]


def trace_of(headers: list[tuple[bytes, bytes]]) -> Trace:
    """Return the trace of a request with these headers."""
    random = os.urandom(24).hex()
    for name, value in headers:
        if name == b"traceparent":
            match = _TRACEPARENT.match(value)
            if match and match[1] != _NO_TRACE:
                return Trace(match[1].decode(), random[32:], match[2].decode())
    return Trace(random[:32], random[32:], "00")


def header_of(scope: Any, wanted: bytes) -> bytes:
    """Return the value of a request header; empty if there is none."""
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return b""


def path_of(scope: Any) -> str:
    """Return the request's path as spans and logs show it: at most `LONGEST_PATH` characters."""
    path: str = scope["path"]
    return path if len(path) <= LONGEST_PATH else path[:LONGEST_PATH] + "…"


@contextmanager
def traced(scope: Any, sampling: RouteSampling) -> Iterator[Trace]:
    """Yield the request's trace; with tracing on, the block runs within a span, unless `sampling` leaves it out."""
    if not tracing.is_on() or scope["path"] in UNTRACED:
        yield trace_of(scope["headers"])
        return
    carrier = {name: value.decode("latin-1") for name in tracing.FIELDS if (value := header_of(scope, name.encode()))}
    parent = tracing.context_of(carrier)
    if not parent and not sampling.begins_trace(scope["method"], scope["path"]):
        with _left_out(scope) as trace:
            yield trace
        return
    with tracing.span(spans.REQUEST, _method_of(scope), _attributes_of(scope), parent=parent) as span:
        context = span.get_span_context()
        if not context.is_valid:
            yield trace_of(scope["headers"])
            return
        yield Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{context.trace_flags:02x}")


@contextmanager
def _left_out(scope: Any) -> Iterator[Trace]:
    """Yield a trace of which nothing is recorded, unless the request fails; see `note_end`."""
    trace = trace_of([])
    scope[LEFT_OUT_KEY] = datetime.now(UTC)
    with tracing.within(_context_of(trace, TraceFlags.DEFAULT)):
        yield trace


def _context_of(trace: Trace, flags: int) -> SpanContext:
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote=False, trace_flags=TraceFlags(flags))


def _method_of(scope: Any) -> str:
    return scope["method"] if scope["method"] in _METHODS else "_OTHER"


def _attributes_of(scope: Any) -> dict[str, Any]:
    return {
        spans.HTTP_METHOD: _method_of(scope),
        spans.URL_PATH: path_of(scope),
        spans.URL_SCHEME: scope.get("scheme", "http"),
    }


def note_end(span: Span, scope: Any, route: str, status: int) -> None:
    """Record route and status on a request's span; a request that was left out and failed gets its span now."""
    if (since := scope.get(LEFT_OUT_KEY)) is not None and status >= 500:
        _record_failure(span.get_span_context(), scope, route, status, since)
    if not span.is_recording():
        return
    if route:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute(spans.HTTP_ROUTE, route)
    span.set_attribute(spans.HTTP_STATUS, status)
    if status >= 500:
        tracing.fail(span, str(status))


def _record_failure(context: SpanContext, scope: Any, route: str, status: int, since: datetime) -> None:
    """Record the span of a request that failed, alone in its trace, so that the trace id in its body finds it."""
    sampled = TraceFlags(TraceFlags.SAMPLED)
    tracing.emit(
        spans.REQUEST,
        f"{_method_of(scope)} {route}".strip(),
        _attributes_of(scope) | {spans.HTTP_ROUTE: route or None, spans.HTTP_STATUS: status},
        context=SpanContext(context.trace_id, context.span_id, is_remote=False, trace_flags=sampled),
        parent=SpanContext(context.trace_id, INVALID_SPAN_ID, is_remote=False, trace_flags=sampled),
        during=(since, datetime.now(UTC)),
        error=str(status),
    )


def trace_id_of(scope: Any) -> str | None:
    """Return the trace id of the request with this ASGI scope."""
    found: str | None = scope.get(SCOPE_KEY)
    return found
