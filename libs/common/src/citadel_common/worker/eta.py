"""ETA and countdown: a task whose time has not come goes to the queue's timers as soon as a worker takes it.

Celery itself would hold it in memory until then. A message that cannot be read is not for this module: Celery refuses
it afterwards, and it becomes a dead letter.
"""

from collections.abc import Container
from datetime import UTC, datetime
from typing import Any

import structlog
from celery.utils.time import maybe_iso8601, maybe_make_aware

from citadel_common.delivery.entries import step_in
from citadel_common.delivery.held_messages import HeldMessages
from citadel_common.delivery.timers import Timers, WaitingTask

log = structlog.get_logger(__name__)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Waiting:
    """Moves messages whose time has not come to the timers of a worker's queue."""

    def __init__(self, timers: Timers, zone: str) -> None:
        self._timers = timers
        self._zone = zone

    def takes(self, message: Any, known: Container[str]) -> bool:
        """Return whether the message waits in the broker now, or is held by another worker.

        Args:
            message: A message that this worker holds.
            known: Names of the tasks that this worker has; a message of another one need not wait to be refused.

        Raises:
            redis.RedisError: The broker does not answer, or refuses; the message is still held.
        """
        fields = message.headers  # those of Celery's first protocol are there too
        if not isinstance(fields, dict) or not fields.get("eta") or fields.get("task") not in known:
            return False
        task = self._waiting_task(message, fields)
        return task is not None and self._moves(task, message.channel.qos, fields)

    def _moves(self, task: WaitingTask, held: HeldMessages, fields: dict[str, Any]) -> bool:
        answer = self._timers.wait(task, held=held.unacked_key, index=held.unacked_index_key)
        if answer == "expired":
            fields["expires"] = EPOCH.isoformat()  # Celery judges by another clock, which may be late
        if answer in ("due", "expired"):
            return False
        if answer == "lost":
            log.info("message_no_longer_held", task_id=task.task_id)
        held.forget(task.tag)
        return True

    def _waiting_task(self, message: Any, fields: dict[str, Any]) -> WaitingTask | None:
        """Return the message with its times, or None if they cannot be read."""
        expires = fields.get("expires")
        try:
            eta, limit = self._epoch_of(fields["eta"]), self._epoch_of(expires) if expires else None
        except (AttributeError, TypeError, ValueError, OverflowError):
            return None
        return WaitingTask(
            task_id=fields["id"],
            tag=message.delivery_tag,
            step=step_in(message.delivery_tag) or 0,
            eta=eta,
            expires=limit,
        )

    def _epoch_of(self, moment: Any) -> float:
        """Return an ISO 8601 time in seconds since the epoch; one without a zone is in the app's, which is UTC."""
        return float((maybe_make_aware(maybe_iso8601(moment), self._zone) - EPOCH).total_seconds())
