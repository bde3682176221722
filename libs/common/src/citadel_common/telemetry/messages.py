"""The spans of a message: PRODUCER where it is sent, CONSUMER where it is worked on, the one below the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import Span, SpanContext

from citadel_common.telemetry import spans, tracing
from citadel_common.telemetry.tracing import Attributes, Carrier

CELERY = "celery"
"""`messaging.system` of tasks: what a client speaks is Celery's protocol, whichever broker carries it."""
ATTEMPT_HEADER = "citadel_attempt"
"""Message header: `traceparent` of the attempt before, where a task is tried again."""
REDIS = "redis"
"""`messaging.system` of lists that are no queue of Celery's."""


@contextmanager
def sending(
    destination: str, *, system: str = CELERY, message_id: str | None = None, task: str | None = None
) -> Iterator[Carrier]:
    """Around the publishing of a message, which is to carry what this gives; a failing one leaves nothing behind."""
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
    """Around the work on a message.

    Args:
        destination: Where it was sent.
        carrier: What it carries; one without a trace context begins a trace.
        system: Whose message it is.
        message_id: Its id.
        task: The task's name.
        before: What its `ATTEMPT_HEADER` says, to which the span is linked.
        passes: Exceptions that are no failures.
    """
    about = _about(destination, "process", system, message_id, task) if tracing.is_on() else None
    parent = tracing.context_of(carrier) if about is not None else None
    links = _links(before) if about is not None else ()
    with tracing.span(spans.PROCESS, destination, about, parent=parent, links=links, passes=passes) as span:
        yield span


def attempt() -> dict[str, str]:
    """The header by which the next attempt of the task that runs now is linked to this one; none outside a span."""
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
