"""An OTLP/HTTP receiver: takes real protobuf, keeps the spans, and can hang or refuse."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2

Mode = Literal["ok", "counting", "hanging", "refusing"]
"""`counting` takes requests and does not look into them: for benchmarks, whose processors it shares."""


@dataclass(frozen=True, kw_only=True)
class ReceivedSpan:
    """A span as it was sent; ids in hex, times in nanoseconds."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    failed: bool
    attributes: dict[str, Any] = field(default_factory=dict)
    links: tuple[str, ...] = ()


class OtlpReceiver:
    """A receiver in a thread of this process; what it took is in `spans`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.mode: Mode = "ok"
        self.bodies: list[bytes] = []
        self.requests = 0
        self._spans: list[ReceivedSpan] = []
        self._lock = threading.Lock()
        self.released = threading.Event()
        self._server = ThreadingHTTPServer((host, port), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """For `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All spans so far."""
        with self._lock:
            return list(self._spans)

    def of_trace(self, trace_id: str) -> list[ReceivedSpan]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def services(self) -> dict[str, dict[str, int]]:
        """How many spans of each service came, by trace."""
        found: dict[str, Counter[str]] = {}
        for span in self.spans:
            found.setdefault(span.trace_id, Counter())[span.service] += 1
        return {trace: dict(counts) for trace, counts in found.items()}

    def take(self, body: bytes) -> None:
        """Keep a request."""
        request = ExportTraceServiceRequest.FromString(body)
        found = list(_spans_of(request))
        with self._lock:
            self.bodies.append(body)
            self._spans.extend(found)

    def forget(self) -> None:
        """Forget all."""
        with self._lock:
            self.bodies.clear()
            self._spans.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler_of(receiver: OtlpReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if receiver.mode == "hanging":
                receiver.released.wait(60)
            receiver.requests += 1
            status = 503 if receiver.mode == "refusing" else 200
            if receiver.mode == "ok":
                receiver.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            with contextlib.suppress(ConnectionError):  # who waited has given up
                self.end_headers()
                self.wfile.write(answer)

        def do_GET(self) -> None:
            """For those who are not in its process: per trace the services whose spans came, and how many."""
            body = json.dumps(receiver.services()).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    return Handler


def _spans_of(request: ExportTraceServiceRequest) -> Iterable[ReceivedSpan]:
    for resource in request.resource_spans:
        service = _values(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield _received(service, span)


def _received(service: str, span: trace_pb2.Span) -> ReceivedSpan:
    return ReceivedSpan(
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        attributes=_values(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {entry.key: _value(entry.value) for entry in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
