"""Acceptance of tasks as in the API: recorded first, published then."""

import uuid
from types import TracebackType
from typing import Any, Self

from celery.result import AsyncResult

from citadel_common.delivery.accepted_tasks import DUE, LEASES, MESSAGES, AcceptedTasks, TaskMessage, publish_accepted
from citadel_common.settings.common import AcceptedSettings, CommonSettings
from citadel_common.tasks.app import create_app
from tests.support.fleet import Fleet


class Accepting:
    """Accepts `generate_embedding` tasks on the Redis of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.app = create_app(CommonSettings(broker_url=fleet.redis.url))
        self.client = fleet.redis.client()
        self.db = AcceptedTasks(self.client, AcceptedSettings(first_look=0.5))

    def accept(self, text: Any, **kwargs: Any) -> TaskMessage:
        """Record a task; its message is not published yet."""
        message = TaskMessage(
            task_id=str(uuid.uuid4()), name="generate_embedding", kwargs={"text": text, **kwargs}, priority=3
        )
        self.db.add(message)
        return message

    def publish(self, message: TaskMessage, *, times: int = 1) -> None:
        """Publish the message of a recorded task."""
        for _ in range(times):
            publish_accepted(self.app, message)

    def result(self, message: TaskMessage) -> AsyncResult:
        """Return the result of a task."""
        return self.fleet.plain.app.AsyncResult(message.task_id)

    def has_forgotten(self) -> bool:
        """Return True if no record of any task is left."""
        return not self.client.exists(MESSAGES, DUE, LEASES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.app.close()
