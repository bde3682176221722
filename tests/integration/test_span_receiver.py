"""The way to a receiver of spans, and whatever it answers."""

import contextlib
import gc
import random
import socket
import threading
from collections import Counter

import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from structlog.testing import capture_logs

from citadel_common.telemetry import names
from citadel_common.telemetry.pipeline import CountedExporter
from citadel_common.telemetry.receiver import span_exporter
from tests.doubles.otlp.receiver import OtlpReceiver
from tests.support.forward_proxy import ForwardProxy
from tests.support.gateway import gateway
from tests.support.planted import planted
from tests.support.private_ca import PrivateAuthority

pytestmark = pytest.mark.usefixtures("bare_environment")
PASSWORD = planted("receiver")
ANSWERS = 10_000


class Counts:
    """Metrics that a test can read: spans by outcome."""

    def __init__(self):
        self.spans = Counter()

    def count(self, name, amount=1, **labels):
        assert name == names.SPANS
        self.spans[labels["outcome"]] += amount


@pytest.fixture(scope="module")
def receiver():
    """A receiver."""
    with OtlpReceiver() as process:
        yield process


def some_spans(count=3):
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    spans = [tracer.start_span(f"span {number}") for number in range(count)]
    for span in spans:
        span.end()
    return spans


def export(monkeypatch, endpoint, **variables):
    """Send three spans; return what was counted."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = span_exporter()
    assert found is not None
    counts = Counts()
    exporter = CountedExporter(found, counts)
    exporter.export(some_spans())
    exporter.shutdown()
    return +counts.spans


def test_credentials_of_its_url_are_sent(monkeypatch, receiver):
    with gateway(receiver.endpoint, credentials=f"me:{PASSWORD}@", mount="/otlp") as (url, calls):
        counts = export(monkeypatch, url.replace("://", f"://me:{PASSWORD}%40@"), OTEL_EXPORTER_OTLP_HEADERS="x-team=a")
    assert (counts, calls.calls) == ({"exported": 3}, ["POST /otlp/v1/traces"])
    assert calls.last_headers["x-team"] == "a"


@pytest.mark.parametrize("tls", [False, True], ids=["absolute form", "CONNECT"])
def test_it_is_reached_by_a_proxy_and_with_a_private_authority(monkeypatch, receiver, tmp_path, tls):
    authority = PrivateAuthority(tmp_path)
    certificate = authority.sign("otlp.test") if tls else None
    with (
        gateway(receiver.endpoint, host="otlp.test", certificate=certificate) as (url, _),
        ForwardProxy(credentials=f"me:{PASSWORD}") as proxy,
    ):
        by_proxy = {"ALL_PROXY": f"http://me:{PASSWORD}@{proxy.place}"}
        assert export(monkeypatch, url, **by_proxy, SSL_CERT_FILE=str(authority.file)) == {"exported": 3}
        assert [request.split(" ")[0] for request in proxy.requests] == ["CONNECT" if tls else "POST"]
        assert export(monkeypatch, url, NO_PROXY="otlp.test") == {"failed": 3}


def test_the_certificate_of_the_standard_variable_is_the_only_one_trusted(monkeypatch, receiver, tmp_path):
    authority = PrivateAuthority(tmp_path)
    with gateway(receiver.endpoint, certificate=authority.sign("127.0.0.1")) as (url, _):
        with capture_logs() as lines:
            assert export(monkeypatch, url) == {"failed": 3}
        (line,) = [line for line in lines if line["event"] == "spans_not_exported"]
        assert "certificate in CA_FILE of the server or in SSL_CERT_FILE" in line["reason"]
        assert export(monkeypatch, url, OTEL_EXPORTER_OTLP_CERTIFICATE=str(authority.file)) == {"exported": 3}


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT has no scheme"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://me:{PASSWORD}@"}, "OTEL_EXPORTER_OTLP_ENDPOINT names no host"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such.pem"}, "ca_file"),
    ],
)
def test_a_receiver_that_cannot_be_used_turns_traces_off_and_is_named(monkeypatch, caplog, capsys, variables, reason):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert span_exporter() is None
    said = capsys.readouterr().out + caplog.text
    assert "traces_off" in said
    assert reason in said
    assert PASSWORD not in said


class Answering:
    """A server that answers each request with the next of the bytes that a test gives it, and closes."""

    def __init__(self, answers):
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.answered = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        for answer in self._answers:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with near, contextlib.suppress(OSError):
                near.settimeout(5)
                heard = near.recv(65536)
                head, _, body = heard.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                while len(body) < length:
                    body += near.recv(65536)
                near.sendall(answer)
                near.shutdown(socket.SHUT_WR)
            self.answered += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the accept that waits in the thread
        self._listener.close()
        self._thread.join()


def whole(status=b"200 OK", body=b"", *headers):
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), b"connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def rejecting(count):
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = count
    return whole(b"200 OK", answer.SerializeToString(), b"content-type: application/x-protobuf")


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        (whole(), {"exported": 3}),
        (whole(b"202 Accepted"), {"exported": 3}),
        (rejecting(2), {"exported": 1, "failed": 2}),
        (rejecting(2**40), {"failed": 3}),
        (rejecting(-5), {"exported": 3}),
        (whole(b"200 OK", b"\xff" * 100, b"content-type: application/x-protobuf"), {"exported": 3}),
        (whole(b"200 OK", b"<html>Log in</html>", b"content-type: text/html"), {"failed": 3}),
        (whole(b"302 Found", b"", b"location: /login"), {"failed": 3}),
        (whole(b"401 Unauthorized"), {"failed": 3}),
        (whole(b"400 Bad Request", b"x" * 1_000_000), {"failed": 3}),
        (whole(b"200 OK", b"\x1f\x8b" + b"\0" * 50, b"content-encoding: gzip"), {"exported": 3}),
    ],
)
def test_every_span_is_counted_by_what_became_of_it(monkeypatch, answer, counts):
    with Answering([answer]) as server:
        assert export(monkeypatch, server.url) == counts


def fuzzed(chance):
    """A random answer: HTTP in part, with random status, headers, body and end. None of them is retried."""
    status = chance.choice([100, 101, 199, 200, 201, 204, 206, 300, 304, 307, 400, 404, 413, 500, 599, 99, 999, 0])
    body = chance.randbytes(chance.choice([0, 1, 20, 200, 5_000, 100_000]))
    kind = chance.choice([b"application/x-protobuf", b"application/json", b"text/html", b"\xff\x00", b"", b"a" * 3000])
    coding = chance.choice([b"identity", b"gzip", b"deflate", b"br", b"\x80"])
    length = chance.choice([len(body), len(body) + 5, max(0, len(body) - 5), -1, 10**30])
    framing = chance.choice([b"content-length: %d" % length, b"transfer-encoding: chunked", b"x: y"])
    if framing.startswith(b"transfer") and chance.random() < 0.7:
        body = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    head = b"HTTP/1.1 %d %s\r\n%s\r\ncontent-type: %s\r\ncontent-encoding: %s\r\nconnection: close\r\n\r\n" % (
        status, chance.choice([b"OK", b"", b"\xe4\xf6"]), framing, kind, coding,
    )  # fmt: skip
    whole = head + body
    if chance.random() < 0.2:
        whole = whole[: chance.randrange(len(whole))]
    if chance.random() < 0.2:
        place = chance.randrange(len(whole) or 1)
        whole = whole[:place] + chance.randbytes(chance.randrange(1, 8)) + whole[place + 3 :]
    return whole


@pytest.mark.timeout(300)
def test_ten_thousand_fuzzed_answers_end_counted_and_cost_no_memory(monkeypatch, caplog):
    caplog.set_level("CRITICAL", "opentelemetry")  # else pytest keeps a line of each
    chance = random.Random(14)
    # what breaks off is tried once more at once, so some answers serve the same spans
    with Answering(fuzzed(chance) for _ in range(2 * ANSWERS)) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
        found = span_exporter()
        assert found is not None
        counts, spans, sent = Counts(), some_spans(), 0
        exporter = CountedExporter(found, counts)
        memory, before = psutil.Process().memory_info, 0
        while server.answered < ANSWERS:
            assert exporter.export(spans) in SpanExportResult
            sent += len(spans)
            if not before and server.answered > ANSWERS // 5:
                gc.collect()
                before = memory().rss
        gc.collect()
        grown = memory().rss - before
        exporter.shutdown()
    assert sum(counts.spans.values()) == sent
    assert set(+counts.spans) == {"exported", "failed"}
    assert grown < 8_000_000  # bytes: 1 kB for each answer, of which some have 100 kB
