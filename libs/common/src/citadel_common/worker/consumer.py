"""Celery's consumer; a message that cannot become a task becomes a dead letter, and its task fails."""

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer

from citadel_common.delivery.transport import is_task_id
from citadel_common.errors import UndecodableMessage
from citadel_common.tasks.runtime import runtime_of

_log = logging.getLogger(__name__)


class GuardedConsumer(Consumer):  # type: ignore[misc]  # celery publishes no types
    """A consumer that stores and answers the messages that Celery would only log and drop."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return Celery's handler, guarded: an error that it lets through would end the worker."""
        handle = super().create_task_handler(*args, **kwargs)

        def guarded(message: Any) -> None:
            problem = _problem_of(message)
            if problem is not None:
                self._dead_letter(message, f"the message is refused: {problem}")
                return
            try:
                handle(message)
            except self.connection_errors:
                raise
            except Exception as error:  # noqa: BLE001  (whatever it is, it must not end the worker)
                _log.exception("message refused")
                self._dead_letter(message, f"the message is refused: {type(error).__name__}: {error}")

        return guarded

    def cancel_active_requests(self) -> None:
        """Interrupt the running tasks through the service, since threads cannot be ended from outside."""
        runtime_of(self.app).interrupt()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Dead-letter a message whose body does not fit its content type."""
        self._dead_letter(message, f"the message's body cannot be decoded: {exc}")

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002  (Celery's signature)
        """Dead-letter a message of no known task protocol."""
        self._dead_letter(message, "the message is not a Celery task message: it has no task name")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """Dead-letter a task that this worker does not have."""
        name = (message.headers or {}).get("task")
        self._dead_letter(message, f"this queue's workers have no task named {name!r}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """Dead-letter a task with a refused content type or with arguments of the wrong shape."""
        self._dead_letter(message, f"the message is refused: {exc}")

    def _dead_letter(self, message: Any, problem: str) -> None:
        try:
            runtime_of(self.app).dead_letter_message(message, UndecodableMessage(problem))
        finally:
            message.ack_log_error(_log, self.connection_errors)


def _problem_of(message: Any) -> str | None:
    """Return what Celery would stumble over in a task message of its current protocol, or None."""
    headers = message.headers
    if not isinstance(headers, dict) or "task" not in headers:
        return None
    if not isinstance(headers["task"], str):
        return "the task's name is not text"
    if not is_task_id(headers.get("id")):
        return "the task has no usable id"
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001  (reported by Celery's own checks)
        return None
    match payload:
        case [list(), dict(), dict() | None]:
            return None
    return "the body is not a list of arguments, named arguments and options"
