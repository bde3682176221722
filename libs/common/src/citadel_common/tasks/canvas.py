"""Celery's canvas around a task: callbacks, errbacks, the rest of a chain, a chord. It follows the task's end, once.

Celery's worker publishes callbacks and chain when the task function returns, and again when the message is delivered
again. Here each end has a name, the delivery tag of the task's first message, under which its messages are published
in one step (`delivery.publish_once`). A task whose result comes later (a run's) keeps its canvas with the run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import group
from celery._state import _task_stack
from celery.app.task import Context
from celery.canvas import maybe_signature
from kombu.exceptions import EncodeError, OperationalError

from citadel_common.delivery import serializer
from citadel_common.delivery.publish_once import OncePublisher
from citadel_common.delivery.taking import PUBLISHED_TAG
from citadel_common.errors import PayloadTooLarge, StoreUnavailable, UndecodableMessage

if TYPE_CHECKING:
    from celery import Celery

FIRST_MESSAGE_HEADER = "citadel_first_message"
"""Message header of a retry: the delivery tag of the task's first message."""
LATER = object()
"""Returned by a handler whose task's result is stored, and its canvas followed, when something else has ended."""
LARGEST = 16 * 2**20
"""Most bytes of a canvas that is kept."""
_FOLLOWED = ("callbacks", "errbacks", "chain", "chord")
_KEPT = (*_FOLLOWED, "group", "group_index", "root_id", "parent_id", "ignore_result", "stamped_headers", "stamps")
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError, EncodeError)
"""What Celery raises for a signature that it cannot publish."""
_end: ContextVar[str | None] = ContextVar("end", default=None)


def name_of_end(request: Any) -> str | None:
    """Return the name of a task's end: the same for each delivery and each retry, another for each sending."""
    message = first_message(request)
    return None if message is None else f"{request.id}:{message}"


def first_message(request: Any) -> str | None:
    """Return the delivery tag of the first message of a task, for the header of its next one."""
    properties = request.properties or {}
    tag = request.get(FIRST_MESSAGE_HEADER) or properties.get(PUBLISHED_TAG) or properties.get("delivery_tag")
    return tag if isinstance(tag, str) else None


def canvas_of(request: Any) -> bytes | None:
    """Return the canvas of a running task as JSON, to be followed later; None for a task that nothing follows.

    Raises:
        PayloadTooLarge: It is too large to be kept.
    """
    found = {field: value for field in _KEPT if is_given(value := request.get(field))}
    if found.get("root_id") == request.id:
        del found["root_id"]
    if not found:
        return None
    about = {"id": request.id, "task": request.task, FIRST_MESSAGE_HEADER: first_message(request)}
    kept = serializer.dumps(found | about).encode()
    if len(kept) > LARGEST:
        raise PayloadTooLarge(f"what follows the task has {len(kept):,} bytes as JSON; the limit is {LARGEST:,}")
    return kept


def is_given(value: Any) -> bool:
    """Return False for what a message without that field of a canvas holds; the first place in a group is 0."""
    return bool(value) or (value == 0 and value is not False)


def task_of(canvas: bytes) -> str:
    """Return the id of the task that a canvas is of."""
    return str(serializer.loads(canvas)["id"])


def leave_for_later(request: Any) -> None:
    """Keep Celery from following the canvas of a running task, and from storing a result."""
    request.update(dict.fromkeys(_FOLLOWED), ignore_result=True)


def _request_of(canvas: bytes) -> Context:
    return Context(serializer.loads(canvas), args=[], kwargs={}, delivery_info={}, called_directly=False)


@contextmanager
def ending(request: Any) -> Iterator[None]:
    """Publish what Celery publishes in the block as part of the end of a task; None stands for the end around it."""
    token = _end.set((None if request is None else name_of_end(request)) or _end.get())
    try:
        yield
    finally:
        _end.reset(token)


@contextmanager
def part_of_end(name: str) -> Iterator[None]:
    """Publish what Celery publishes in the block as a part of the end around it."""
    end = _end.get()
    token = _end.set(None if end is None else f"{end}:{name}")
    try:
        yield
    finally:
        _end.reset(token)


@dataclass(frozen=True)
class _Child:
    """A task that follows, as the result of its parent names it; Celery's `AsyncResult` would wait for it."""

    form: Any

    def as_tuple(self) -> Any:
        """Return Celery's stored form (its hook)."""
        return self.form


class CanvasFollower:
    """Follows the canvas of tasks that have ended.

    Args:
        app: The worker's app; its result backend stores results and counts the parts of chords.
        publisher: Publishes once.
    """

    def __init__(self, app: "Celery", publisher: OncePublisher) -> None:
        self._app = app
        self._publisher = publisher

    def succeeded(self, canvas: bytes, result: Any) -> None:
        """End a task that left its canvas for later: publish what follows, then store its result.

        Raises:
            StoreUnavailable: A store does not answer; call it again.
            redis.RedisError: The same.
            UndecodableMessage: What follows cannot be published.
        """
        request = _request_of(canvas)
        with self._as_current(request):
            self.follow(request, result)
        self._app.backend.mark_as_done(request.id, result, request=request)

    def failed(self, canvas: bytes, error: Exception) -> None:
        """End a task that left its canvas for later, and has no result but an error.

        Raises:
            redis.RedisError: A store does not answer; call it again.
        """
        request = _request_of(canvas)
        self._app.backend.mark_as_failure(request.id, error, request=request)

    def revoked(self, canvas: bytes) -> None:
        """End a task that left its canvas for later, and was revoked: nothing follows it, and its chord fails.

        Raises:
            redis.RedisError: A store does not answer; call it again.
        """
        request = _request_of(canvas)
        self._app.backend.mark_as_revoked(request.id, "revoked", request=request)

    def follow(self, request: Any, result: Any) -> None:
        """Publish callbacks and the next task of the chain, before the result is stored; it names them as children.

        Raises:
            StoreUnavailable: A store does not answer; call it again.
            UndecodableMessage: What follows cannot be published.
        """
        if not (request.callbacks or request.chain):
            return
        with ending(request):
            children = self.once("next", lambda: self._publish(request, result))
        request.children[:] = map(_Child, children)
        request.update(callbacks=None, chain=None)

    def once(self, part: str, make: Callable[[], Any]) -> Any:
        """Publish a part of what follows the end around this call, once; outside of one, publish at once.

        Raises:
            StoreUnavailable: A store does not answer; call it again.
            UndecodableMessage: What follows cannot be published.
        """
        end = _end.get()
        try:
            return make() if end is None else self._publisher.publish(f"{end}:{part}", make)
        except OperationalError as error:
            raise StoreUnavailable(f"what follows the task is not published: {error}") from error
        except _MALFORMED as error:
            raise UndecodableMessage(
                f"what follows the task cannot be published: {type(error).__name__}: {error}"
            ) from error

    def _publish(self, request: Any, result: Any) -> list[Any]:
        """Publish callbacks and chain; return Celery's form of the results of their tasks."""
        place: Any = {"parent_id": request.id, "root_id": request.root_id or request.id}
        del request.children[:]
        for callback in self._joined(request.callbacks or []):
            callback.apply_async((result,), **place)
        if request.chain:
            *rest, first = request.chain
            maybe_signature(first, app=self._app).apply_async((result,), chain=rest, **place)
        return [child.as_tuple() for child in request.children]

    def _joined(self, callbacks: list[Any]) -> list[Any]:
        """Return signatures of callbacks; several tasks are one group, as the children that Celery shows."""
        found = [maybe_signature(callback, app=self._app) for callback in callbacks]
        tasks = [signature for signature in found if not isinstance(signature, group)]
        groups = [signature for signature in found if isinstance(signature, group)]
        return [*groups, group(tasks, app=self._app)] if len(found) > 1 and tasks else found

    @contextmanager
    def _as_current(self, request: Any) -> Iterator[None]:
        """Make a task the current one of this thread: Celery notes its children there."""
        task = self._app.tasks[request.task]
        task.request_stack.push(request)
        _task_stack.push(task)
        try:
            yield
        finally:
            _task_stack.pop()
            task.request_stack.pop()
