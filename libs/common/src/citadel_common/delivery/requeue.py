"""Requeueing of dead letters: each is published again as it was, by one operator at a time."""

from typing import TYPE_CHECKING, Any

import structlog
from kombu.exceptions import OperationalError

from citadel_common.delivery.accepted_tasks import HEADER as ACCEPTED_HEADER
from citadel_common.delivery.accepted_tasks import RESULT_PREFIX, AcceptedTasks, TaskMessage
from citadel_common.delivery.dead_letters import HISTORY_HEADER, DeadLetter, DeadLetters
from citadel_common.delivery.redelivery import PREFIX as DELIVERIES_PREFIX
from citadel_common.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from citadel_common.stores.redis import ERRORS
from citadel_common.telemetry import tracing
from citadel_common.validation import parse_payload
from citadel_contracts import TASKS

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

__all__ = ["RESULT_PREFIX", "Requeue"]

log = structlog.get_logger(__name__)
_CLEAR = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
"""Removes the failed result, unless the task has stored another one since."""


class Requeue:
    """Publishes dead letters again.

    A dead letter leaves the store only after its message is on the queue, so none is lost. If an operator's process
    dies in between, the dead letter can be requeued again once its claim has lapsed.

    Args:
        app: Celery app of a producer.
        letters: The store.
        client: Client of the results store.
    """

    def __init__(self, app: "Celery", dead_letters: DeadLetters, client: "Redis") -> None:
        self._app = app
        self._dead_letters = dead_letters
        self._client = client
        self._accepted = AcceptedTasks(client)
        self._clear: Any = client.register_script(_CLEAR)

    def requeue(self, dead_letter_id: str) -> DeadLetter:
        """Publish the task of a dead letter with its id, arguments, lane and headers; remove its failed result.

        Deliveries and retries are counted anew. The task has no deadline, since nobody waits for it any more.

        Raises:
            NotFound: There is no dead letter of that id.
            Conflict: It is not a task, its arguments are no longer valid, or another operator requeues it.
            StoreUnavailable: It could not be published; the dead letter is still there.
        """
        with self._dead_letters.claimed(dead_letter_id):
            dead_letter = self._dead_letters.get(dead_letter_id)
            if dead_letter is None:
                raise NotFound(f"there is no dead letter {dead_letter_id!r}")
            _check(dead_letter)
            failed: Any = self._client.get(RESULT_PREFIX + dead_letter.id)
            self._client.delete(DELIVERIES_PREFIX + dead_letter.id)
            self._register(dead_letter)
            self._publish(dead_letter)
            self._dead_letters.settle(dead_letter)
            if failed is not None:
                self._clear(keys=[RESULT_PREFIX + dead_letter.id], args=[failed])
        log.info("dead_letter_requeued", **dead_letter.in_logs, queue=dead_letter.queue)
        return dead_letter

    def _register(self, dead_letter: DeadLetter) -> None:
        """Store an accepted task anew, so that the workers publish it again if its message is lost."""
        if not dead_letter.headers.get(ACCEPTED_HEADER):
            return
        if self._accepted.exists(dead_letter.id):
            raise Conflict(f"the task of dead letter {dead_letter.id!r} has not ended yet; try again in a moment")
        fields = _spec_of(dead_letter).payload.model_fields
        kwargs = dict(zip(fields, dead_letter.args, strict=False)) | dead_letter.kwargs
        priority = dead_letter.priority or 0
        trace = tracing.carrier_in(dead_letter.headers)
        self._accepted.add(
            TaskMessage(
                task_id=dead_letter.id, name=str(dead_letter.task), kwargs=kwargs, priority=priority, trace=trace
            )
        )

    def _publish(self, dead_letter: DeadLetter) -> None:
        """Publish within the task's trace, and link the operator's request to it."""
        tracing.link(tracing.current_span(), tracing.span_context_of(dead_letter.headers))
        with tracing.continuing(dead_letter.headers):
            self._send(dead_letter)

    def _send(self, dead_letter: DeadLetter) -> None:
        try:
            self._app.send_task(
                dead_letter.task,
                args=dead_letter.args,
                kwargs=dead_letter.kwargs,
                task_id=dead_letter.id,
                queue=dead_letter.queue,
                priority=dead_letter.priority or 0,
                headers=dead_letter.headers | {HISTORY_HEADER: dead_letter.history},
                **dead_letter.options,
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            # Celery alone reads the callbacks and the chain of a message, and those of a foreign one may be anything
            raise Conflict(f"dead letter {dead_letter.id!r} cannot be published: {type(error).__name__}") from error
        except (*ERRORS, OperationalError) as error:
            if not dead_letter.headers.get(ACCEPTED_HEADER):
                raise StoreUnavailable("the broker does not answer; the dead letter is still there") from error
            log.warning("requeued_task_not_published", **dead_letter.in_logs, error=type(error).__name__)


def _check(dead_letter: DeadLetter) -> None:
    """Raise Conflict for a dead letter that no worker could run."""
    if not dead_letter.head.requeueable:
        raise Conflict(f"dead letter {dead_letter.id!r} is a message that could not be decoded: it can only be dropped")
    try:
        parse_payload(_spec_of(dead_letter).payload, dead_letter.args, dead_letter.kwargs)
    except InvalidInput as error:
        raise Conflict(
            f"the arguments of dead letter {dead_letter.id!r} are no longer valid: {error.message}"
        ) from None


def _spec_of(dead_letter: DeadLetter) -> Any:
    for spec in TASKS:
        if spec.name == dead_letter.task:
            return spec
    raise Conflict(
        f"there is no task {dead_letter.task!r} any more, so dead letter {dead_letter.id!r} cannot be requeued"
    )
