"""A request's place in a trace: below the caller's W3C `traceparent` where there is one, else in a trace of its own.

With tracing off only the ids are told, so that an answer can be found in the logs.
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
"""Asked for by machines, all the time."""
LONGEST_PATH = 200
"""Characters."""
SCOPE_KEY = "citadel.trace_id"
"""Where the ASGI scope holds the request's trace id."""


class Trace(NamedTuple):
    """One request's place in a trace: ids in lower-case hex."""

    trace_id: str
    span_id: str
    flags: str

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The response headers that tell the caller."""
        response = f"00-{self.trace_id}-{self.span_id}-{self.flags}"
        return [(b"x-request-id", self.trace_id.encode()), (b"traceresponse", response.encode())]


def trace_of(headers: list[tuple[bytes, bytes]]) -> Trace:
    """The trace of a request with these headers."""
    random = os.urandom(24).hex()
    for name, value in headers:
        if name == b"traceparent":
            match = _TRACEPARENT.match(value)
            if match and match[1] != _NO_TRACE:
                return Trace(match[1].decode(), random[32:], match[2].decode())
    return Trace(random[:32], random[32:], "00")


def path_of(scope: Any) -> str:
    """The request's path as spans and logs have it: cut, for a stranger may send any."""
    path: str = scope["path"]
    return path if len(path) <= LONGEST_PATH else path[:LONGEST_PATH] + "…"


@contextmanager
def traced(scope: Any) -> Iterator[Trace]:
    """The request's place in a trace, with a span around the block where tracing is on."""
    if not tracing.is_on() or scope["path"] in UNTRACED:
        yield trace_of(scope["headers"])
        return
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    about = {spans.HTTP_METHOD: method, spans.URL_PATH: path_of(scope), spans.URL_SCHEME: scope.get("scheme", "http")}
    carrier = {name: value for name in tracing.FIELDS if (value := _header(scope, name.encode())) is not None}
    with tracing.span(spans.REQUEST, method, about, parent=tracing.context_of(carrier)) as span:
        context = span.get_span_context()
        if not context.is_valid:
            yield trace_of(scope["headers"])
            return
        yield Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{context.trace_flags:02x}")


def note_end(span: Span, scope: Any, route: str, status: int) -> None:
    """What is known of a request at its end."""
    if not span.is_recording():
        return
    if route:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute(spans.HTTP_ROUTE, route)
    span.set_attribute(spans.HTTP_STATUS, status)
    if status >= 500:
        tracing.fail(span, str(status))


def _header(scope: Any, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)


def trace_id_of(scope: Any) -> str | None:
    """The trace id of the request with this ASGI scope."""
    found: str | None = scope.get(SCOPE_KEY)
    return found
