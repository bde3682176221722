"""The export of spans to a receiver: its double, or Tempo, in which the same spans are found."""

import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    INVALID_SPAN_ID,
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from citadel_common.telemetry import tracing
from citadel_common.telemetry.pipeline import CountedExporter
from citadel_common.telemetry.receiver import span_exporter
from citadel_common.telemetry.spans import REQUEST
from tests.doubles.otlp.receiver import OtlpReceiver
from tests.doubles.otlp.spans import spans_of
from tests.support.polling import eventually
from tests.support.servers import address, double_or_real
from tests.support.spans_in_memory import spans_in_memory


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """A receiver, and how its spans of a run are found."""

    endpoint: str
    spans_of_run: object


@contextmanager
def double():
    """Run a double."""
    with OtlpReceiver() as receiver:

        def spans_of_run(run_id):
            traces = {span.trace_id for span in receiver.spans if span.attributes.get("citadel.run.id") == run_id}
            return [span for span in receiver.spans if span.trace_id in traces]

        yield Receiver(endpoint=receiver.endpoint, spans_of_run=spans_of_run)


@contextmanager
def real():
    """Return the receiver that CITADEL_REAL_OTLP names, whose spans are in the Tempo of CITADEL_REAL_TEMPO."""
    tempo = address("CITADEL_REAL_TEMPO")

    def spans_of_run(run_id):
        query = {"q": f'{{ span.citadel.run.id = "{run_id}" }}'}
        found = httpx.get(f"{tempo}/api/search", params=query, timeout=30).json()["traces"]
        accepted = {"accept": "application/protobuf"}
        bodies = [
            httpx.get(f"{tempo}/api/traces/{each['traceID']}", headers=accepted, timeout=30).content for each in found
        ]
        # a trace of Tempo has the form of an export request
        return [span for body in bodies for span in spans_of(body)]

    yield Receiver(endpoint=address("CITADEL_REAL_OTLP"), spans_of_run=spans_of_run)


@pytest.fixture(scope="module", params=double_or_real(double, real))
def receiver(request):
    """A receiver of spans."""
    with request.param() as server:
        yield server


class Counts:
    """Spans by outcome."""

    def __init__(self):
        self.spans = Counter()

    def count(self, _, amount=1, **labels):
        self.spans[labels["outcome"]] += amount


def export(monkeypatch, receiver, spans, **variables):
    """Send spans as processes do; return what was counted."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    counts = Counts()
    exporter = CountedExporter(span_exporter(), counts)
    exporter.export(spans)
    exporter.shutdown()
    return +counts.spans


def trace_of(run_id):
    """Return the spans of a trace: a root, a failed call below it, and a span that is linked with that."""
    provider = TracerProvider(resource=Resource({"service.name": "citadel-servers"}), shutdown_on_exit=False)
    tracer = provider.get_tracer("servers")
    about = {"citadel.run.id": run_id, "citadel.texts": 3, "ratio": 0.5, "is": True, "listed": ["a", "ünï \U0001f600"]}
    root = tracer.start_span("run", kind=SpanKind.SERVER, attributes=about)
    below = set_span_in_context(root)
    call = tracer.start_span("chat m", context=below, kind=SpanKind.CLIENT, attributes={"error.type": "llm_refused"})
    call.set_status(Status(StatusCode.ERROR))
    sent = tracer.start_span("send q", context=below, kind=SpanKind.PRODUCER, links=[Link(call.get_span_context())])
    for span in (sent, call, root):
        span.end()
    return [root, call, sent]


def test_the_spans_of_a_run_are_found_as_they_were_sent(receiver, monkeypatch):
    run_id = str(uuid.uuid4())
    spans = trace_of(run_id)
    assert export(monkeypatch, receiver, spans) == {"exported": 3}
    found = {}

    def has_all():
        found.update({span.name: span for span in receiver.spans_of_run(run_id)})
        return len(found) == len(spans)

    eventually(has_all, timeout=60)
    root, call, sent = (found[span.name] for span in spans)
    assert {span.trace_id for span in found.values()} == {f"{spans[0].context.trace_id:032x}"}
    assert (root.service, root.kind, root.parent_id, root.failed) == ("citadel-servers", "SERVER", "", False)
    assert root.attributes == {
        "citadel.run.id": run_id, "citadel.texts": 3, "ratio": 0.5, "is": True, "listed": ["a", "ünï \U0001f600"],
    }  # fmt: skip
    assert (call.kind, call.parent_id, call.failed) == ("CLIENT", root.span_id, True)
    assert (sent.kind, sent.parent_id, sent.links) == ("PRODUCER", root.span_id, (call.span_id,))
    assert (root.began, root.ended) == (spans[0].start_time, spans[0].end_time)


def test_a_span_made_after_the_fact_is_the_root_of_its_trace(receiver, monkeypatch):
    run_id, now = str(uuid.uuid4()), datetime.now(UTC)
    own = SpanContext(uuid.uuid4().int, 7, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    trace = SpanContext(own.trace_id, INVALID_SPAN_ID, is_remote=False, trace_flags=own.trace_flags)
    with spans_in_memory() as memory:
        about = {"citadel.run.id": run_id}
        tracing.emit(REQUEST, "GET /late", about, context=own, parent=trace, during=(now, now), error="503")
        assert export(monkeypatch, receiver, memory.get_finished_spans()) == {"exported": 1}
    (found,) = eventually(lambda: receiver.spans_of_run(run_id), timeout=60)
    assert (found.trace_id, found.span_id, found.parent_id) == (f"{own.trace_id:032x}", f"{7:016x}", "")
    assert (found.name, found.failed) == ("GET /late", True)


def test_compressed_spans_are_taken(receiver, monkeypatch):
    spans = trace_of(str(uuid.uuid4()))
    assert export(monkeypatch, receiver, spans, OTEL_EXPORTER_OTLP_COMPRESSION="gzip") == {"exported": 3}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("POST", "/v1/traces", {"content-type": "application/x-protobuf"}, b"", 200),
        ("POST", "/v1/traces", {"content-type": "application/x-protobuf"}, b"garbage", 400),
        ("POST", "/v1/traces", {"content-type": "text/plain"}, b"x", 415),
        ("GET", "/v1/traces", {}, b"", 405),
        ("POST", "/v1/other", {"content-type": "application/x-protobuf"}, b"", 404),
    ],
)
def test_what_is_no_export_is_refused(receiver, method, path, headers, body, status):
    answer = httpx.request(method, receiver.endpoint + path, headers=headers, content=body, timeout=30)
    assert answer.status_code == status
