"""Spans: what is made where, what they carry, and that nothing stays behind."""

import gc
from datetime import UTC, datetime, timedelta

import pytest

from citadel_common.errors import InvalidInput
from citadel_common.telemetry import messages, spans, tracing
from tests.support.spans_in_memory import spans_in_memory

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HOSTILE = [None, {}, [], 7, {"traceparent": 7}, {"traceparent": ["x"]}, {"traceparent": "00-" + "0" * 32 + "-x-01"}]


@pytest.fixture
def made():
    with spans_in_memory() as exporter:
        yield exporter


def names_of(made):
    return [span.name for span in made.get_finished_spans()]


def test_without_a_receiver_there_are_no_spans_and_no_headers():
    with messages.sending("q") as carrier, messages.processing("q", carrier) as span:
        assert carrier == {}
        assert not span.is_recording()
    assert tracing.carrier() == {}
    assert not tracing.current().is_valid


def test_the_consumer_span_is_a_child_of_the_producer_span(made):
    with messages.sending("embeddings", message_id="m", task="t") as carrier:
        pass
    with messages.processing("embeddings", carrier, message_id="m", task="t"):
        pass
    sent, processed = made.get_finished_spans()
    assert (sent.name, processed.name) == ("send embeddings", "process embeddings")
    assert (sent.kind.name, processed.kind.name) == ("PRODUCER", "CONSUMER")
    assert processed.parent.span_id == sent.context.span_id
    assert processed.context.trace_id == sent.context.trace_id
    assert dict(sent.attributes) == {
        "messaging.system": "celery",
        "messaging.destination.name": "embeddings",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.id": "m",
        "citadel.task.name": "t",
    }


@pytest.mark.parametrize("carrier", HOSTILE)
def test_a_message_with_a_strange_context_begins_a_trace(made, carrier):
    with tracing.span(spans.RUN, "outer"), messages.processing("q", carrier):
        pass
    inner, _ = made.get_finished_spans()
    assert inner.parent is None


def test_an_error_tells_its_code_and_never_its_message(made):
    with pytest.raises(InvalidInput), tracing.span(spans.RUN, "workflow"):
        raise InvalidInput("a marked text is too long")
    [span] = made.get_finished_spans()
    assert span.attributes["error.type"] == "invalid_input"
    assert "marked" not in span.to_json()


def test_nested_spans_appear_only_below_a_sampled_span(made):
    with tracing.span(spans.TRANSACTION):
        pass
    unsampled = tracing.context_of({"traceparent": TRACEPARENT[:-1] + "0"})
    with messages.processing("q", {"traceparent": TRACEPARENT[:-1] + "0"}), tracing.span(spans.TRANSACTION):
        pass
    assert unsampled
    assert made.get_finished_spans() == ()
    with messages.processing("q", {"traceparent": TRACEPARENT}), tracing.span(spans.TRANSACTION):
        pass
    assert names_of(made) == ["transaction", "process q"]


def test_a_span_whose_id_was_fixed_before_is_the_parent_of_what_came_in_between(made):
    root = tracing.span_context_of({"traceparent": TRACEPARENT})
    step = tracing.sibling(root, "run", "step", 1)
    with tracing.within(step), messages.sending("q"):
        pass
    began = datetime(2026, 1, 1, tzinfo=UTC)
    ended = began + timedelta(milliseconds=1500)
    tracing.emit(spans.STEP, "wait", {}, context=step, parent=root, during=(began, ended), error="timeout")
    sent, emitted = made.get_finished_spans()
    assert sent.parent.span_id == emitted.context.span_id
    assert emitted.parent.span_id == root.span_id
    assert emitted.end_time - emitted.start_time == 1_500_000_000
    assert emitted.start_time == int(began.timestamp()) * 1_000_000_000
    with tracing.span(spans.RUN, "next"):
        pass
    assert made.get_finished_spans()[-1].context.span_id != step.span_id


def test_the_same_identity_gives_the_same_span_in_every_process():
    root = tracing.span_context_of({"traceparent": TRACEPARENT})
    assert tracing.sibling(root, "a", 1) == tracing.sibling(root, "a", 1)
    assert tracing.sibling(root, "a", 1) != tracing.sibling(root, "a", 2)


def test_ten_thousand_messages_leave_nothing_behind(made):
    def work(count):
        for _ in range(count):
            with messages.sending("q") as carrier:
                pass
            with pytest.raises(InvalidInput), messages.processing("q", carrier):
                raise InvalidInput
        made.clear()
        gc.collect()
        return len(gc.get_objects())

    before = work(1_000)
    assert work(10_000) - before < 500
    assert not tracing.current().is_valid


def test_names_and_attributes_are_declared():
    assert len({spec.name + spec.target for spec in spans.SPANS}) == len(spans.SPANS)
    assert all(spec.help and spec.attributes for spec in spans.SPANS)
