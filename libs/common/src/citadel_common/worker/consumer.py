"""Celery's consumer; a message that cannot become a task becomes a dead letter, and its task fails."""

import logging
from collections.abc import Callable
from typing import Any

from celery.app.task import Context
from celery.worker.consumer import Consumer
from redis import RedisError

from citadel_common.delivery.entries import is_task_id
from citadel_common.errors import UndecodableMessage
from citadel_common.tasks import builtin
from citadel_common.tasks.app import HIDDEN
from citadel_common.tasks.runtime import runtime_of
from citadel_common.worker import foreign_messages
from citadel_common.worker.eta import Waiting
from citadel_contracts import TASKS

_OF_CELERY = "celery."
"""Prefix of the tasks that every Celery app has."""
_log = logging.getLogger(__name__)


class GuardedConsumer(Consumer):  # type: ignore[misc]  # celery publishes no types
    """A consumer that stores and answers the messages that Celery would only log and drop."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return Celery's handler, guarded: an error that it lets through would end the worker.

        Celery calls this after each connection, before it consumes: what was revoked meanwhile is known from here on.
        """
        self._learn_revokes()
        handle = super().create_task_handler(*args, **kwargs)
        queue = runtime_of(self.app).identity.queue
        waiting = Waiting(runtime_of(self.app).timers, self.app.conf.timezone)

        def guarded(message: Any) -> None:
            try:
                problem = foreign_messages.adapt(message, queue) or _problem_of(message)
                if problem is not None:
                    self._dead_letter(message, f"the message is refused: {problem}")
                    return
                _hide_arguments(message)
                self._forget_time_if_revoked(message)
                if not waiting.takes(message, self.strategies):
                    handle(message)
            except self.connection_errors:
                raise
            except Exception as error:  # noqa: BLE001  (whatever it is, it must not end the worker)
                _log.exception("message refused")
                self._dead_letter(message, f"the message is refused: {type(error).__name__}: {error}")

        return guarded

    def on_close(self) -> None:
        """Forget what was taken and not begun, as Celery does when its connection is lost."""
        super().on_close()
        runtime_of(self.app).holdings.drop_all_but_submitted()

    def cancel_active_requests(self) -> None:
        """Interrupt the running tasks through the service, since threads cannot be ended from outside."""
        runtime_of(self.app).interrupt()

    def _forget_time_if_revoked(self, message: Any) -> None:
        """Let a revoked task with a countdown end now: its time may come when the revoke is forgotten."""
        fields = message.headers
        if isinstance(fields, dict) and fields.get("eta") and runtime_of(self.app).revoked.has(fields["id"], fields):
            fields["eta"] = None

    def _learn_revokes(self) -> None:
        try:
            runtime_of(self.app).learn_revokes(all_of_them=True)
        except self.connection_errors:
            raise
        except RedisError as error:  # refused, by a key of a wrong type or an access list: the tasks go on without
            _log.warning("revokes not read: %s", type(error).__name__)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Dead-letter a message whose body does not fit its compression or its content type."""
        problem = foreign_messages.unreadable(message)
        refused = f"the message is refused: {problem}"
        self._dead_letter(message, refused if problem else f"the message's body cannot be decoded: {exc}")

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002  (Celery's signature)
        """Dead-letter a message of no known task protocol."""
        self._dead_letter(message, "the message is not a Celery task message: it has no task name")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """Dead-letter a task that this worker does not have."""
        name = (message.headers or {}).get("task")
        others = [f"; it belongs to the queue {spec.queue.value!r}" for spec in TASKS if spec.name == name]
        self._dead_letter(message, f"this queue's workers have no task named {name!r}{''.join(others)}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """Dead-letter a task with a refused content type or with arguments of the wrong shape."""
        self._dead_letter(message, f"the message is refused: {exc}")

    def _dead_letter(self, message: Any, problem: str) -> None:
        try:
            runtime_of(self.app).dead_letter_message(message, UndecodableMessage(problem), _request_of(message))
        finally:
            message.ack_log_error(_log, self.connection_errors)


def _hide_arguments(message: Any) -> None:
    """Hide the readable copy of the arguments that foreign clients send along: events would show it."""
    if isinstance(message.headers, dict):
        message.headers |= {name: HIDDEN for name in ("argsrepr", "kwargsrepr") if name in message.headers}


def _problem_of(message: Any) -> str | None:
    """Return what Celery would stumble over in a task message, or None."""
    headers = message.headers
    if not isinstance(headers, dict):
        return None
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001  (reported by Celery's own checks)
        payload = None
    if "task" not in headers:
        return None
    return _head_problem(headers) or (None if payload is None else _body_problem(payload))


def _request_of(message: Any) -> Context | None:
    """Return the request of a task that is refused, if its message has a canvas that Celery can read."""
    about = {"args": [], "kwargs": {}, "delivery_info": {}, "properties": message.properties}
    try:
        payload = message.payload
        return None if _body_problem(payload) else Context({**message.headers, **(payload[2] or {}), **about})
    except Exception:  # noqa: BLE001  (why it cannot be read is what the message is refused for)
        return None


def _head_problem(headers: Any) -> str | None:
    """Return the problem of a task's name or id."""
    name = headers["task"]
    if not isinstance(name, str):
        return "the task's name is not text"
    if name.startswith(_OF_CELERY) and name not in builtin.NAMES:
        return f"{name!r} is a task of Celery's own, which no worker here runs"
    if not isinstance(headers.get("shadow") or "", str):
        return "the task's other name is not text"
    return None if is_task_id(headers.get("id")) else "the task has no usable id"


def _body_problem(payload: Any) -> str | None:
    match payload:
        case [list(), dict(), None]:
            return None
        case [list(), dict(), dict() as canvas]:
            return _canvas_problem(canvas)
    return "the body is not a list of arguments, named arguments and options"


def _canvas_problem(canvas: dict[str, Any]) -> str | None:
    """Return what Celery would stumble over after the task, when its work is done."""
    for name in ("callbacks", "errbacks", "chain"):
        signatures = canvas.get(name) or []
        if not (isinstance(signatures, list) and all(map(_is_signature, signatures))):
            return f"{name} is not a list of signatures"
    chord = canvas.get("chord")
    return None if chord is None or _is_signature(chord) else "chord is not a signature"


def _is_signature(value: Any) -> bool:
    """Return whether Celery can publish it: a task's name, its arguments and options."""
    match value:
        case {"task": str()}:
            kinds = {"args": list, "kwargs": dict, "options": dict}
            return all(value.get(name) is None or isinstance(value[name], kind) for name, kind in kinds.items())
    return False
