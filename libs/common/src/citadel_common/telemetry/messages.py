"""The spans of a message: PRODUCER where it is sent, CONSUMER where it is worked on, the one below the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import Span

from citadel_common.telemetry import spans, tracing
from citadel_common.telemetry.tracing import Attributes, Carrier

CELERY = "celery"
"""`messaging.system` of tasks: what a client speaks is Celery's protocol, whichever broker carries it."""
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
    passes: tuple[type[BaseException], ...] = (),
) -> Iterator[Span]:
    """Around the work on a message that carries `carrier`; one without begins a trace. `passes` are no failures."""
    about = _about(destination, "process", system, message_id, task) if tracing.is_on() else None
    parent = tracing.context_of(carrier) if about is not None else None
    with tracing.span(spans.PROCESS, destination, about, parent=parent, passes=passes) as span:
        yield span


def _about(destination: str, operation: str, system: str, message_id: str | None, task: str | None) -> Attributes:
    return {
        spans.MESSAGING_SYSTEM: system,
        spans.MESSAGING_DESTINATION: destination,
        spans.MESSAGING_OPERATION: operation,
        spans.MESSAGING_TYPE: operation,
        spans.MESSAGING_ID: message_id,
        spans.TASK: task,
    }
