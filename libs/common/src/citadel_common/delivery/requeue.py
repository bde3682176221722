"""Requeues dead letters: each is published again as it was, by one operator at a time."""

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
"""Removes the old result, and none that the task has had since."""


class Requeue:
    """Publishes dead letters again.

    A letter leaves the store only once its message is on the queue, so none is lost; an operator's process that
    dies in between leaves a letter that can be requeued a second time when its claim has lapsed.

    Args:
        app: Celery app of a producer.
        letters: The store.
        client: Client of the results store.
    """

    def __init__(self, app: "Celery", letters: DeadLetters, client: "Redis") -> None:
        self._app = app
        self._letters = letters
        self._client = client
        self._accepted = AcceptedTasks(client)
        self._clear: Any = client.register_script(_CLEAR)

    def requeue(self, letter_id: str) -> DeadLetter:
        """Publishes a letter's task with its id, arguments, lane and headers; its failed result goes.

        Deliveries and retries begin anew; nobody waits any more, so it has no deadline.

        Raises:
            NotFound: There is no such letter.
            Conflict: It is no task, its arguments are no longer valid, or somebody else is at it.
            StoreUnavailable: It could not be published; the letter is still there.
        """
        with self._letters.claimed(letter_id):
            letter = self._letters.get(letter_id)
            if letter is None:
                raise NotFound(f"there is no dead letter {letter_id!r}")
            _check(letter)
            failed: Any = self._client.get(RESULT_PREFIX + letter.id)
            self._client.delete(DELIVERIES_PREFIX + letter.id)
            self._register(letter)
            self._publish(letter)
            self._letters.settle(letter)
            if failed is not None:
                self._clear(keys=[RESULT_PREFIX + letter.id], args=[failed])
        log.info("dead_letter_requeued", id=letter.id, task=letter.task, queue=letter.queue)
        return letter

    def _register(self, letter: DeadLetter) -> None:
        """Records an accepted task anew: from here on the workers see to it that it is run."""
        if not letter.headers.get(ACCEPTED_HEADER):
            return
        if self._accepted.exists(letter.id):
            raise Conflict(f"the task of dead letter {letter.id!r} has not ended yet; try again in a moment")
        fields = _spec_of(letter).payload.model_fields
        kwargs = dict(zip(fields, letter.args, strict=False)) | letter.kwargs
        priority = letter.priority or 0
        trace = tracing.carrier_in(letter.headers)
        self._accepted.add(
            TaskMessage(task_id=letter.id, name=str(letter.task), kwargs=kwargs, priority=priority, trace=trace)
        )

    def _publish(self, letter: DeadLetter) -> None:
        """As part of the task's trace, to which the operator's request is linked."""
        tracing.link(tracing.current_span(), tracing.span_context_of(letter.headers))
        with tracing.continuing(letter.headers):
            self._send(letter)

    def _send(self, letter: DeadLetter) -> None:
        try:
            self._app.send_task(
                letter.task,
                args=letter.args,
                kwargs=letter.kwargs,
                task_id=letter.id,
                queue=letter.queue,
                priority=letter.priority or 0,
                headers=letter.headers | {HISTORY_HEADER: letter.history},
                **letter.options,
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            # what a foreign message said of callbacks or a chain, which only Celery looks into
            raise Conflict(f"dead letter {letter.id!r} cannot be published: {type(error).__name__}") from error
        except (*ERRORS, OperationalError) as error:
            if not letter.headers.get(ACCEPTED_HEADER):
                raise StoreUnavailable("the broker does not answer; the dead letter is still there") from error
            log.warning("requeued_task_not_published", id=letter.id, error=type(error).__name__)


def _check(letter: DeadLetter) -> None:
    """Refuses what no worker could run."""
    if not letter.head.requeueable:
        raise Conflict(f"dead letter {letter.id!r} is a message that could not be decoded: it can only be dropped")
    try:
        parse_payload(_spec_of(letter).payload, letter.args, letter.kwargs)
    except InvalidInput as error:
        raise Conflict(f"the arguments of dead letter {letter.id!r} are no longer valid: {error.message}") from None


def _spec_of(letter: DeadLetter) -> Any:
    for spec in TASKS:
        if spec.name == letter.task:
            return spec
    raise Conflict(f"there is no task {letter.task!r} any more, so dead letter {letter.id!r} cannot be requeued")
