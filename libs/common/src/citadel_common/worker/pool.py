"""Celery's thread pool; an error of Celery's own work around a task ends the message and does not leave it held.

A task's own errors end in its result. But what Celery does before and after it (callbacks, chains, storing the result)
can raise too, from what a message holds or from a store, and the thread pool drops such an error: the message would
stay held, and with it a place of the prefetch, until the worker ends.
"""

from collections.abc import Callable
from typing import Any

import structlog
from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult, TaskPool
from celery.worker.state import task_ready

from citadel_common.errors import UndecodableMessage
from citadel_common.stores.redis import ERRORS
from citadel_common.tasks.runtime import runtime_of

log = structlog.get_logger(__name__)


class GuardedPool(TaskPool):  # type: ignore[misc]  # celery publishes no types
    """A pool of threads in which no message is held for ever."""

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: Any = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> Any:
        """Run a task in a thread (Celery's hook); `callback` is a method of the task's request."""
        request = callback.__self__
        tag, holdings = request.message.delivery_tag, runtime_of(request.app).holdings
        holdings.submit(tag)

        def guarded() -> None:
            if not holdings.begin(tag):
                log.warning("message_no_longer_held", task_id=request.id)
                task_ready(request)
                holdings.drop(tag)
                return
            try:
                if runtime_of(request.app).revoked.has(request.id, request.request_dict):
                    _revoke(request)
                    return
                apply_target(target, args, kwargs, callback, accept_callback)
            except Exception as error:  # noqa: BLE001  (whatever it is, the message must not stay held)
                _end(request, error)

        return ApplyResult(self.executor.submit(guarded))


def _revoke(request: Any) -> None:
    """End a task that was revoked before its start."""
    runtime = runtime_of(request.app)
    request._announce_revoked("revoked", False, None, False)  # noqa: SLF001
    runtime.accepted.finish(request.id)
    runtime.count_revoked(request.type)
    log.info("task_revoked", task_id=request.id, task=request.type)


def _end(request: Any, error: Exception) -> None:
    """Hand a message back if a store is to blame; else dead-letter it."""
    task_ready(request)
    if isinstance(error, (*ERRORS, *request.connection_errors)):
        log.warning("message_handed_back", task_id=request.id, error=type(error).__name__)
        request.reject(requeue=True)
        return
    log.error("message_refused", task_id=request.id, exc_info=error)
    problem = UndecodableMessage(f"the message cannot be ended: {type(error).__name__}: {error}")
    try:
        runtime_of(request.app).dead_letter_message(request.message, problem)
    finally:
        request.acknowledge()
