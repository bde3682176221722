"""Spans as processors get them: sampled as set up, within the SDK's limits, and without what an exception says."""

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from citadel_common.telemetry import messages, spans, tracing
from tests.support.spans_in_memory import spans_in_memory

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED, NOT_SAMPLED = (f"00-{TRACE}-00f067aa0ba902b7-0{flag}" for flag in (1, 0))


def made_with(monkeypatch, carrier=None, **environment):
    """Spans of a message and of a look into the cache below it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with spans_in_memory() as exporter:
        with messages.processing("q", carrier), tracing.span(spans.CACHE):
            below = tracing.current()
        return exporter.get_finished_spans(), below


@pytest.mark.parametrize(
    ("sampler", "traceparent", "count"),
    [
        ("parentbased_always_on", None, 2),
        ("parentbased_always_on", NOT_SAMPLED, 0),
        ("parentbased_always_off", None, 0),
        ("parentbased_always_off", SAMPLED, 2),
        ("always_on", NOT_SAMPLED, 2),
        ("always_off", SAMPLED, 0),
    ],
)
def test_the_sampler_of_the_environment_decides(monkeypatch, sampler, traceparent, count):
    carrier = {"traceparent": traceparent} if traceparent else None
    made, _ = made_with(monkeypatch, carrier, OTEL_TRACES_SAMPLER=sampler)
    assert len(made) == count


@pytest.mark.parametrize(("ratio", "count"), [("0", 0), ("1", 2)])
def test_a_ratio_samples_whole_traces(monkeypatch, ratio, count):
    made, _ = made_with(monkeypatch, OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG=ratio)
    assert len(made) == count


def test_an_unsampled_span_passes_its_trace_on(monkeypatch):
    made, below = made_with(monkeypatch, {"traceparent": NOT_SAMPLED, "tracestate": "vendor=1"})
    assert made == ()
    assert (f"{below.trace_id:032x}", below.trace_flags.sampled) == (TRACE, False)
    assert below.trace_state.get("vendor") == "1"


def test_texts_are_cut_to_the_limit_of_the_environment(monkeypatch):
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4")
    with spans_in_memory() as exporter:
        with tracing.span(spans.RUN, "x", {spans.RUN_KIND: "workflow"}) as span:
            span.set_attribute(spans.RUN_STATUS, "succeeded")
            span.set_attribute(spans.TEXTS, 12345)
        [made] = exporter.get_finished_spans()
    assert dict(made.attributes) == {spans.RUN_KIND: "work", spans.RUN_STATUS: "succ", spans.TEXTS: 12345}


def test_links_are_added_and_bounded():
    links = [SpanContext(1, number, is_remote=True, trace_flags=TraceFlags(1)) for number in range(1, 1001)]
    with spans_in_memory() as exporter:
        with tracing.span(spans.RUN, "x", links=links[:127]) as span:
            for later in links[127:]:
                tracing.link(span, later)
        [made] = exporter.get_finished_spans()
    assert [link.context.span_id for link in made.links] == list(range(1, 129))


def test_links_of_the_beginning_are_bounded():
    links = [SpanContext(1, number, is_remote=True, trace_flags=TraceFlags(1)) for number in range(1, 1001)]
    with spans_in_memory() as exporter:
        with tracing.span(spans.RUN, "x", links=links):
            assert tracing.is_sampled()
        [made] = exporter.get_finished_spans()
    assert len(made.links) == 128


def test_changes_after_the_end_of_a_span_are_lost():
    with spans_in_memory() as exporter:
        with tracing.span(spans.RUN, "x") as span:
            assert span.is_recording()
        span.set_attributes({spans.RUN_KIND: "late"})
        span.set_status(Status(StatusCode.ERROR))
        span.update_name("late")
        span.add_event("late")
        tracing.link(span, span.get_span_context())
        span.end()
        [made] = exporter.get_finished_spans()
    assert (made.name, dict(made.attributes), made.events, made.links) == ("run x", {}, (), ())
    assert made.status.status_code is StatusCode.UNSET
    assert not span.is_recording()


def test_of_an_exception_only_its_class_is_recorded():
    with spans_in_memory() as exporter:
        with tracing.span(spans.RUN, "x") as span:
            span.record_exception(ValueError("a secret text"), {spans.TEXTS: 1})
            span.add_event("seen")
        [made] = exporter.get_finished_spans()
    assert dict(made.attributes) == {spans.ERROR_TYPE: "ValueError", spans.TEXTS: 1}
    assert [event.name for event in made.events] == ["seen"]
    encoded = encode_spans([made]).SerializeToString()
    assert b"seen" in encoded
    assert b"secret" not in encoded
