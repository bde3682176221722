"""Trace ids: taken from W3C `traceparent` where the caller sends one, made up otherwise."""

import os
import re
from typing import Any, NamedTuple

_TRACEPARENT = re.compile(rb"^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?$")
_NO_TRACE = b"0" * 32
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


def trace_id_of(scope: Any) -> str | None:
    """The trace id of the request with this ASGI scope."""
    found: str | None = scope.get(SCOPE_KEY)
    return found
