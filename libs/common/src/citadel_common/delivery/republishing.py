"""Accepted tasks are published again when their messages are known not to be in the broker, never because time passed.

A task is looked at when it is due: some time after it was accepted, after its lease has run out, and at once when the
broker may have lost data.
"""

import time
import uuid
from typing import TYPE_CHECKING, Any

import structlog
from kombu.exceptions import OperationalError
from redis import ResponseError

from citadel_common.delivery.accepted_tasks import AcceptedTasks, publish_accepted
from citadel_common.delivery.tracked_messages import TrackedMessages
from citadel_common.stores.redis import ERRORS
from citadel_common.telemetry import Metrics, names

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

log = structlog.get_logger(__name__)
EPOCH_KEY = "citadel:broker:epoch"
BATCH = 500
"""Tasks looked at by one command."""
LONGEST = 2.0
"""Seconds of one call; the next one goes on."""


def epoch_of(client: "Redis") -> str:
    """Return the epoch of a Redis: it changes when the data may have changed without a command of ours.

    A key is missing in a Redis that was emptied or restarted without its data. The server's run id changes with every
    restart and failover, which may have lost the newest writes.
    """
    client.set(EPOCH_KEY, uuid.uuid4().hex, nx=True)
    key: Any = client.get(EPOCH_KEY) or b""
    try:
        server: Any = client.info("server")
        run_id = server.get("run_id", "")
    except ResponseError:  # a proxy that does not know the command
        run_id = ""
    return f"{key.decode()}:{run_id}"


class LossDetector:
    """Notices that a Redis may have lost data: it was emptied, restarted, or another server took over.

    Args:
        client: A client of that Redis.
    """

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._seen: str | None = None

    def __call__(self) -> bool:
        """Return True if the epoch has changed since the last call; False while Redis does not answer."""
        try:
            epoch = epoch_of(self._client)
        except ERRORS:
            return False
        before, self._seen = self._seen, epoch
        return before is not None and before != epoch


class Republisher:
    """Publishes accepted tasks whose messages are missing.

    Args:
        app: Celery app of the process.
        broker: Client of the broker's Redis.
        accepted: The tasks.
        metrics: Counts what is published again.
    """

    def __init__(self, app: "Celery", broker: "Redis", accepted: AcceptedTasks, metrics: Metrics) -> None:
        self._app = app
        self._broker = broker
        self._accepted = accepted
        self._tracked = TrackedMessages(broker)
        self._metrics = metrics

    def look(self) -> None:
        """Look at the tasks that are due, for two seconds at most."""
        end, epoch = time.monotonic() + LONGEST, epoch_of(self._broker)
        while time.monotonic() < end:
            if not self._accepted.hasten(epoch):
                continue
            due = self._accepted.due(BATCH)
            missing = dict.fromkeys(self._tracked.missing(due))
            self._accepted.look_later([task_id for task_id in due if task_id not in missing])
            if not all(self._publish(task_id) for task_id in missing) or len(due) < BATCH:
                return

    def _publish(self, task_id: str) -> bool:
        """Publish a task unless a worker runs it; return False if the broker takes nothing now."""
        message = self._accepted.to_publish(task_id)
        if message is None:
            return True
        try:
            publish_accepted(self._app, message)
        except OperationalError as error:
            log.warning("accepted_task_not_published", task_id=task_id, error=type(error).__name__)
            return False
        self._metrics.count(names.REPUBLISHED, 1)
        self._metrics.count(names.RESENDS, 1, kind="task", reason="missing")
        log.warning("accepted_task_republished", task_id=message.task_id, looks=message.looks)
        return True
