"""Uvicorn's HTTP protocol on httptools, with bounds that neither has.

httptools keeps a head of any length, and calls `on_header` for trailers too. Uvicorn stops its only timer at the first
byte of a request, queues pipelined requests without end, and waits for ever for a client that reads no response.
"""

import asyncio
import socket
import struct
from typing import Any

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from citadel_common.errors import CitadelError, Overloaded
from citadel_orchestration.api.http.connections import STATE_KEY, Connections
from citadel_orchestration.api.http.errors import (
    HeadersTimedOut,
    HeadersTooLarge,
    MalformedRequest,
    UploadStalled,
    UrlTooLong,
)
from citadel_orchestration.api.http.problems import response_to
from citadel_orchestration.api.http.trace import SCOPE_KEY, trace_of

log = structlog.get_logger(__name__)
SLICE = 16_384
"""Bytes that are parsed at once; the socket gives up to 256 KiB, in which thousands of requests have room."""
MAX_PIPELINED = 16
"""Requests that may wait on one connection for the one before them."""
LINGER = 2.0
"""Seconds that a client may go on sending after a refusal; closed at once, its answer would be lost in a reset."""
CHUNK_OVERHEAD = 16
"""Bytes of chunk framing allowed per byte of a body."""
SLOW_READER = "slow_reader"
"""Reason under which closed connections are counted whose clients read too slowly."""
_FRAMING = (b"content-length", b"transfer-encoding")
_BYTES_ACKED = 120
"""Offset of `tcpi_bytes_acked` in Linux's `struct tcp_info`, from linux/tcp.h."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""
        self._connections: Connections = app_state[STATE_KEY]
        self._limits = self._connections.settings
        self._above_limit: CitadelError | None = None
        self._refusal: CitadelError | None = None
        self._is_refused = self._is_resuming = False
        # A deadline runs while the client is awaited between requests, in a head, or after a refusal.
        self._deadline: float | None = None
        self._has_head = self._is_complete = True
        self._overhead = self._body = self._body_seen = 0
        self._waited = self._idle = 0.0
        self._reader: tuple[float, int] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection (asyncio's hook)."""
        super().connection_made(transport)
        self._above_limit = self._connections.admit(self, self.client[0] if self.client else "")
        self._deadline = self.loop.time() + self._limits.header_timeout

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (asyncio's hook)."""
        self._connections.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what the client has sent (asyncio's hook)."""
        self._unset_keepalive_if_required()
        if len(data) <= SLICE:
            self._feed(data)
            return
        for start in range(0, len(data), SLICE):
            self._feed(data[start : start + SLICE])

    def _feed(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._overhead += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade()
            self._feed(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal or MalformedRequest())
            return
        # Zero for a request that came whole.
        if self._overhead and (problem := self._excess()):
            self._refuse(problem)

    def _decline_upgrade(self) -> None:
        """Go on in HTTP/1.1 with a request that asks for another protocol, as every JDK's client does of a plain URL.

        httptools takes such a request to have no body. So another parser is told how the body is framed, and reads it
        and whatever follows.
        """
        framing = [header for header in self.scope["headers"] if header[0] in _FRAMING]
        url, self.parser = self.url, httptools.HttpRequestParser(self)
        self._is_resuming = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % header for header in framing))
        self._is_resuming = False
        self.url, self.headers = url, []

    def on_message_begin(self) -> None:
        """Begin a request (httptools' hook)."""
        if self._is_resuming:
            return
        super().on_message_begin()
        self._has_head = self._is_complete = False
        self._deadline = self.loop.time() + self._limits.header_timeout

    def on_headers_complete(self) -> None:
        """Start to serve the request unless its head or its connection is above a limit (httptools' hook)."""
        if self._is_resuming:
            return
        # What has come may hold a part of the body too, so it is the head's exact size that counts.
        is_large = self._overhead > self._limits.max_header_bytes
        self._refusal = self._excess_of_head(self._head_bytes() if is_large else 0) or self._above_limit_of_server()
        if self._refusal is not None:
            raise self._refusal
        self._deadline = None
        self._has_head = True
        self._overhead = self._body = self._body_seen = 0
        self._waited = self._idle = 0.0
        super().on_headers_complete()
        self.headers = []  # takes the trailers, which would join the headers of a request that is being served
        if self._above_limit is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of the body (httptools' hook)."""
        self._body += len(body)
        self._overhead = max(0, self._overhead - (1 + CHUNK_OVERHEAD) * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request has come whole (httptools' hook)."""
        if self.parser.should_upgrade():
            return  # its body is still to be read
        super().on_message_complete()
        self._is_complete = True
        self._overhead = 0
        if self.cycle.response_complete:
            self._deadline = self.loop.time() + self._limits.keep_alive

    def on_response_complete(self) -> None:
        """Await the next request, or the rest of a body that nobody reads (uvicorn's hook)."""
        super().on_response_complete()
        if self.cycle.response_complete and self._has_head and not self._is_refused:
            self._deadline = self.loop.time() + (self._limits.keep_alive if self._is_complete else LINGER)

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def check(self, now: float, passed: float) -> None:
        """Close the connection if its client is too slow; called every half second.

        Args:
            now: Time of the event loop.
            passed: Seconds since the last check.
        """
        if self._is_late(now):
            self._time_out()
        elif not self._is_complete and self._has_head and not self.cycle.response_complete:
            self._check_body(passed)
        self._check_reader(now)

    def _is_late(self, now: float) -> bool:
        if self._deadline is None or now < self._deadline:
            return False
        if self.flow.read_paused and not self._is_refused:
            # The server does not read, so the client is not to blame.
            self._deadline = now + self._limits.header_timeout
            return False
        return True

    def _time_out(self) -> None:
        if self._has_head or self._is_refused:  # between requests, or after the response
            self._close()
        else:
            seconds = self._limits.header_timeout
            self._refuse(HeadersTimedOut(f"the headers were not complete after {seconds:g} s"))

    def _close(self) -> None:
        """Close the connection; at once if it is closing already, and its client takes nothing."""
        if self.transport.is_closing() or self._is_refused:
            self.transport.abort()
        else:
            self._deadline = self.loop.time() + LINGER
            self.transport.close()

    def _excess(self) -> CitadelError | None:
        """Return the error for an unfinished head, or for trailers or chunk extensions, above a limit."""
        if not self._has_head:
            return self._excess_of_head(self._overhead)
        if self._overhead > self._limits.max_header_bytes:
            return HeadersTooLarge(f"trailers and chunk extensions have over {self._limits.max_header_bytes} bytes")
        return None

    def _excess_of_head(self, size: int) -> CitadelError | None:
        limits = self._limits
        if len(self.url) > limits.max_url_bytes:
            return UrlTooLong(f"the path with its query has over {limits.max_url_bytes} bytes, the limit")
        if len(self.headers) > limits.max_headers:
            return HeadersTooLarge(f"the request has more than {limits.max_headers} headers, the limit")
        if size > limits.max_header_bytes:
            return HeadersTooLarge(f"the headers have over {limits.max_header_bytes} bytes, the limit")
        return None

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _above_limit_of_server(self) -> CitadelError | None:
        """Return the error for a connection above a limit, unless it asks for a probe, or for an endless pipeline."""
        if self._above_limit is not None and self.url.partition(b"?")[0] not in self._connections.probes:
            return self._above_limit
        if len(self.pipeline) >= MAX_PIPELINED:
            return Overloaded(f"more than {MAX_PIPELINED} requests wait on one connection")
        return None

    def _check_body(self, passed: float) -> None:
        """Refuse a body that comes too slowly. Time in which the server does not read is not the client's."""
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._idle = 0.0
            return
        limits = self._limits
        self._waited += passed
        self._idle = 0.0 if self._body > self._body_seen else self._idle + passed
        self._body_seen = self._body
        if self._idle > limits.upload_timeout:
            self._refuse(UploadStalled(f"nothing of the body came for {limits.upload_timeout:g} s"))
        elif self._waited > limits.body_timeout:
            self._refuse(UploadStalled(f"the body was not complete after {limits.body_timeout:g} s"))
        elif self._waited > limits.rate_grace + self._body / limits.min_rate:
            self._refuse(UploadStalled(f"the body came at less than {limits.min_rate} bytes per second"))

    def _check_reader(self, now: float) -> None:
        """Close the connection if the client has taken too little of what waits for it."""
        if not self.transport.get_write_buffer_size():
            self._reader = None
            return
        taken, timeout = self._taken(), self._limits.write_timeout
        if self._reader is None:
            self._reader = (now + timeout, taken)
        elif now >= self._reader[0]:
            if taken - self._reader[1] < self._limits.min_rate * timeout:
                self._connections.count(SLOW_READER)
                self.abort()
            self._reader = (now + timeout, taken)

    def _taken(self) -> int:
        """Return the bytes that the client's kernel has acknowledged: those in the buffers of ours say nothing."""
        if hasattr(socket, "TCP_INFO"):
            info = self.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            if len(info) >= _BYTES_ACKED + 8:
                acknowledged: int = struct.unpack_from("Q", info, _BYTES_ACKED)[0]
                return acknowledged
        return -self.transport.get_write_buffer_size()

    def _refuse(self, error: CitadelError) -> None:
        """Answer with an error, and read no more."""
        self._is_refused = True
        self._connections.count(error.code)
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's type leaves out None
        if cycle is None or cycle.response_complete:
            self._answer(error)
        elif self._is_complete or not self._has_head:
            # The fault lies behind a request that is being served: its response comes first, and is the last.
            cycle.keep_alive, self._deadline = False, None
        elif self.pipeline or cycle.response_started:
            self.abort()
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self._answer(error)

    def _answer(self, error: CitadelError) -> None:
        """Send an error, in the form of the path, and close this side: the client has `LINGER` seconds to read it."""
        trace = trace_of([])
        path = self.url.partition(b"?")[0].decode("latin-1")
        response = response_to(error, {"path": path, SCOPE_KEY: trace.trace_id})
        headers = [*self.server_state.default_headers, *response.raw_headers, *trace.headers, (b"connection", b"close")]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(b"%s%s\r\n%s" % (STATUS_LINE[response.status_code], lines, response.body))
        self.transport.write_eof()
        self._deadline = self.loop.time() + LINGER
        log.info("request_refused", code=error.code, status=response.status_code, trace_id=trace.trace_id)
