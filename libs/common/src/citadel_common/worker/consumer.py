"""Celery's consumer, where a message that cannot become a task ends as a dead letter and a clear failure."""

import logging
from typing import Any

from celery.worker.consumer import Consumer

from citadel_common.errors import UndecodableMessage
from citadel_common.tasks.runtime import runtime_of

_log = logging.getLogger(__name__)


class GuardedConsumer(Consumer):  # type: ignore[misc]  # celery publishes no types
    """Answers and keeps what the standard consumer would only log and drop."""

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """The body is not what its content type says."""
        self._put_aside(message, f"the message's body cannot be decoded: {exc}")

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002  (Celery's signature)
        """No task message of any protocol version."""
        self._put_aside(message, "the message is no Celery task message: it has no task name")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """A task that this worker does not have."""
        name = (message.headers or {}).get("task")
        self._put_aside(message, f"this queue's workers have no task named {name!r}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """A content type that is not accepted, or arguments of the wrong shape."""
        self._put_aside(message, f"the message is refused: {exc}")

    def _put_aside(self, message: Any, problem: str) -> None:
        try:
            runtime_of(self.app).put_aside_message(message, UndecodableMessage(problem))
        finally:
            message.ack_log_error(_log, self.connection_errors)
