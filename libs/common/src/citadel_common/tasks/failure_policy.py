"""The failure policy: an error makes its task retry, go back to the queue, fail, or become a dead letter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from celery.exceptions import Ignore, Reject, Retry

from citadel_common.backoff import full_jitter
from citadel_common.delivery.accepted_tasks import HEADER as ACCEPTED_HEADER
from citadel_common.delivery.dead_letters import HISTORY_HEADER, HISTORY_LENGTH, DeadLetter, failure_of
from citadel_common.delivery.redelivery import forgive_delivery
from citadel_common.errors import CitadelError, StoreUnavailable
from citadel_common.stores.redis import ERRORS
from citadel_common.tasks import canvas
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.telemetry import messages
from citadel_common.timestamps import utc_now

log = structlog.get_logger(__name__)

DEADLINE_HEADER = "citadel_deadline"
"""Message header: seconds since the epoch after which nobody waits for the result."""
REPUBLISHED_HEADERS = (ACCEPTED_HEADER, "traceparent", "tracestate", "baggage")
"""Message headers with which a dead letter is published again."""
CANVAS = {
    "link": "callbacks",
    "link_error": "errbacks",
    "chain": "chain",
    "chord": "chord",
    "group_id": "group",
    "group_index": "group_index",
    "root_id": "root_id",
    "parent_id": "parent_id",
    "ignore_result": "ignore_result",
    "stamped_headers": "stamped_headers",
}
"""Celery's canvas around a task: the names of `send_task`'s arguments, and of the request's fields."""


class FailedTask(Protocol):
    """The part of a Celery task that the policy needs."""

    name: str
    request: Any
    retry: Any

    def header(self, name: str) -> Any:
        """Return a header of the task's message, or None."""


class HandBack(Exception):
    """The task goes back to its queue, to be run by another worker."""


class Revoked(Exception):
    """The task was revoked while it ran."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The end of a task that raised an error.

    Attributes:
        outcome: The counter's label.
        to_raise: The exception that Celery gets.
        dead_lettered: Whether it became a dead letter.
    """

    outcome: str
    to_raise: Exception
    dead_lettered: bool = False


class FailurePolicy:
    """Decides about the errors of one task."""

    def __init__(self, task: FailedTask, runtime: TaskRuntime) -> None:
        self._task = task
        self._runtime = runtime

    def on(self, error: Exception) -> Failure:
        """Return how the task ends because of `error`; a revoked one ends revoked, whatever it raised."""
        if isinstance(error, Revoked) or self._runtime.revoked.has(self._task.request.id, self._task.request):
            return self._revoked()
        if isinstance(error, HandBack):
            return self._hand_back()
        if isinstance(error, Ignore | Reject | Retry):
            return Failure(outcome="celery", to_raise=error)
        if isinstance(error, ERRORS):
            error = StoreUnavailable(f"a store does not answer: {type(error).__name__}")
        if not isinstance(error, CitadelError):
            return self._unexpected(error)
        if error.retryable:
            return self._retry(error)
        return Failure(outcome=error.code, to_raise=error)

    def _revoked(self) -> Failure:
        """Store that the task is revoked; the store that does not answer hands the task back, to be revoked later."""
        request, runtime = self._task.request, self._runtime
        try:
            runtime.app.backend.mark_as_revoked(request.id, "revoked", request=request)
            runtime.accepted.finish(request.id)
        except ERRORS as error:
            log.warning("revoke_delayed", error=type(error).__name__)
            return Failure(outcome="handed_back", to_raise=Reject("the revoke is not stored", requeue=True))
        log.info("task_revoked", task=self._task.name)
        return Failure(outcome="revoked", to_raise=Ignore("revoked"))

    def _hand_back(self) -> Failure:
        try:
            forgive_delivery(self._runtime.results, self._task.request.id)
        except ERRORS as error:
            log.warning("hand_back_unrecorded", error=type(error).__name__)
        self._release()
        return Failure(outcome="handed_back", to_raise=Reject("the worker is stopping", requeue=True))

    def _release(self) -> None:
        """Release the lease, so that any worker can run the task at once."""
        try:
            self._runtime.accepted.release(self._task.request.id)
        except ERRORS as error:
            log.warning("lease_not_released", error=type(error).__name__)

    def _unexpected(self, error: Exception) -> Failure:
        """Dead-letter the task: a retry would meet the same defect, and its repair needs the arguments."""
        log.error("task_crashed", exc_info=error)
        known = CitadelError(f"internal error: {type(error).__name__}: {error}")
        self._runtime.dead_letter_task(self._task.request, dead_letter_of(self._task, self._runtime, known), known)
        return Failure(outcome=known.code, to_raise=known, dead_lettered=True)

    def _retry(self, error: CitadelError) -> Failure:
        if self._task.header(DEADLINE_HEADER):
            return Failure(outcome=error.code, to_raise=error)  # a caller waits, and decides about a retry
        retry, done = self._runtime.settings.worker.retry, self._task.request.retries or 0
        if done >= retry.max_retries:
            self._runtime.dead_letter_task(self._task.request, dead_letter_of(self._task, self._runtime, error), error)
            return Failure(outcome=error.code, to_raise=error, dead_lettered=True)
        delay = full_jitter(done, base=retry.base, factor=retry.factor, cap=retry.cap)
        delay = max(delay, min(error.retry_after or 0.0, retry.cap))
        log.warning("task_retried", code=error.code, retry=done + 1, delay_s=round(delay, 2))
        headers = dict(self._task.request.headers or {}) | messages.attempt()
        headers[canvas.FIRST_MESSAGE_HEADER] = canvas.first_message(self._task.request)
        headers[HISTORY_HEADER] = history_of(self._task, self._runtime, error)
        self._runtime.will_retry(self._task.request, error)
        self._release()
        try:
            self._task.retry(exc=error, countdown=delay, max_retries=retry.max_retries, headers=headers)
        except Retry as scheduled:
            return Failure(outcome="retried", to_raise=scheduled)
        except Reject:
            # The retry could not be published. Celery would drop the task here; it goes back instead.
            return Failure(outcome="handed_back", to_raise=Reject("retry not published", requeue=True))
        raise AssertionError("retry() always raises")


def history_of(task: FailedTask, runtime: TaskRuntime, error: CitadelError) -> list[dict[str, Any]]:
    """Return the attempts so far, this one last; only the newest are kept."""
    stored = task.header(HISTORY_HEADER)
    earlier = [attempt for attempt in stored if isinstance(attempt, dict)] if isinstance(stored, list) else []
    attempt = {"at": utc_now(), "code": error.code, "error": error.message, "worker": runtime.identity.id}
    attempt |= error.data.model_dump(include={"field", "index", "retryable", "retry_after"})
    return [*earlier, attempt][-HISTORY_LENGTH:]


def dead_letter_of(task: FailedTask, runtime: TaskRuntime, error: CitadelError, *, deliveries: int = 1) -> DeadLetter:
    """Return the running task as a dead letter."""
    return DeadLetter(
        id=task.request.id,
        queue=runtime.identity.queue,
        task=task.name,
        args=list(task.request.args or []),
        kwargs=dict(task.request.kwargs or {}),
        priority=_priority_of(task),
        headers={name: value for name in REPUBLISHED_HEADERS if (value := task.header(name)) is not None}
        | messages.attempt(),
        options=canvas_options(task.request.get),
        **failure_of(error),
        history=history_of(task, runtime, error),
        deliveries=deliveries,
    )


def canvas_options(field: Callable[[str], Any]) -> dict[str, Any]:
    """Return the arguments of `send_task` that give a task the same canvas; `field` returns a field of its request."""
    options = {name: value for name, known in CANVAS.items() if canvas.is_given(value := field(known))}
    stamps, names = field("stamps"), options.pop("stamped_headers", None)
    if not isinstance(stamps, dict) or not isinstance(names, list):  # a foreign message may hold anything
        return options
    known = {name: stamps[name] for name in names if isinstance(name, str) and name in stamps}
    return options | known | {"stamped_headers": list(known)}


def _priority_of(task: FailedTask) -> int | None:
    """Return the message's priority if it is valid; a foreign message may hold anything."""
    priority: Any = (task.request.delivery_info or {}).get("priority")
    return priority if isinstance(priority, int) and 0 <= priority <= 9 else None
