"""The trace of a request: the caller's, given by a W3C `traceparent` header, or a new one.

With tracing off a request still has ids, so that its log lines can be found.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from opentelemetry.trace import Span

from citadel_common.telemetry import spans, tracing

_TRACEPARENT = re.compile(rb"^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?$")
_NO_TRACE = b"0" * 32
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNTRACED = frozenset({"/livez", "/readyz", "/metrics", "/docs", "/openapi.json"})
"""Paths that machines poll; they have no spans."""
LONGEST_PATH = 200
"""Characters of a path that spans and logs show."""
SCOPE_KEY = "citadel.trace_id"
"""Key of the trace id in the ASGI scope."""


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
def traced(scope: Any) -> Iterator[Trace]:
    """Yield the request's trace; with tracing on, the block runs within a span."""
    if not tracing.is_on() or scope["path"] in UNTRACED:
        yield trace_of(scope["headers"])
        return
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    attributes = {
        spans.HTTP_METHOD: method,
        spans.URL_PATH: path_of(scope),
        spans.URL_SCHEME: scope.get("scheme", "http"),
    }
    carrier = {name: value.decode("latin-1") for name in tracing.FIELDS if (value := header_of(scope, name.encode()))}
    with tracing.span(spans.REQUEST, method, attributes, parent=tracing.context_of(carrier)) as span:
        context = span.get_span_context()
        if not context.is_valid:
            yield trace_of(scope["headers"])
            return
        yield Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{context.trace_flags:02x}")


def note_end(span: Span, scope: Any, route: str, status: int) -> None:
    """Record route and status on a request's span."""
    if not span.is_recording():
        return
    if route:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute(spans.HTTP_ROUTE, route)
    span.set_attribute(spans.HTTP_STATUS, status)
    if status >= 500:
        tracing.fail(span, str(status))


def trace_id_of(scope: Any) -> str | None:
    """Return the trace id of the request with this ASGI scope."""
    found: str | None = scope.get(SCOPE_KEY)
    return found
