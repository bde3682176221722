"""Spans of a message: PRODUCER where it is sent and, below it, CONSUMER where it is processed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import Span, SpanContext

from citadel_common.telemetry import spans, tracing
from citadel_common.telemetry.tracing import Attributes, Carrier

CELERY = "celery"
"""`messaging.system` of tasks: clients speak Celery's protocol, whichever broker carries it."""
ATTEMPT_HEADER = "citadel_attempt"
"""Message header: `traceparent` of the previous attempt, if a task is tried again."""
REDIS = "redis"
"""`messaging.system` of lists that are not Celery queues."""


@contextmanager
def sending(
    destination: str, *, system: str = CELERY, message_id: str | None = None, task: str | None = None
) -> Iterator[Carrier]:
    """Open the span of a publish; yield the headers that the message is to carry."""
    if not tracing.is_on():
        yield {}
        return
    about = _about(destination, "send", system, message_id, task)
    with tracing.span(spans.SEND, destination, about):
        yield tracing.carrier()


@contextmanager
def processing(
    destination: str,
    carrier: Any,
    *,
    system: str = CELERY,
    message_id: str | None = None,
    task: str | None = None,
    before: Any = None,
    passes: tuple[type[BaseException], ...] = (),
) -> Iterator[Span]:
    """Open the span of processing a message.

    Args:
        destination: The queue.
        carrier: Carrier in the message; without a trace context a new trace begins.
        system: `messaging.system`.
        message_id: The message's id.
        task: The task's name.
        before: Value of its `ATTEMPT_HEADER`, to which the span is linked.
        passes: Exceptions that are not failures.
    """
    about = _about(destination, "process", system, message_id, task) if tracing.is_on() else None
    parent = tracing.context_of(carrier) if about is not None else None
    links = _links(before) if about is not None else ()
    with tracing.span(spans.PROCESS, destination, about, parent=parent, links=links, passes=passes) as span:
        yield span


def attempt() -> dict[str, str]:
    """Return the header that links the next attempt of the running task to this one; empty outside a span."""
    written = tracing.carrier()
    return {ATTEMPT_HEADER: written["traceparent"]} if written else {}


def _links(before: Any) -> list[SpanContext]:
    context = tracing.span_context_of({"traceparent": before})
    return [context] if context.is_valid else []


def _about(destination: str, operation: str, system: str, message_id: str | None, task: str | None) -> Attributes:
    return {
        spans.MESSAGING_SYSTEM: system,
        spans.MESSAGING_DESTINATION: destination,
        spans.MESSAGING_OPERATION: operation,
        spans.MESSAGING_TYPE: operation,
        spans.MESSAGING_ID: message_id,
        spans.TASK: task,
    }
