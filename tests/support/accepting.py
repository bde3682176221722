"""Accepts tasks as the API does: recorded first, published then."""

import uuid
from types import TracebackType
from typing import Any, Self

from celery.result import AsyncResult

from citadel_common.delivery.accepted_tasks import DUE, LEASES, MESSAGES, AcceptedTasks, TaskMessage, publish_accepted
from citadel_common.settings.common import AcceptedSettings, CommonSettings
from citadel_common.tasks.app import create_app
from tests.support.fleet import Fleet


class Accepting:
    """An accepter of `generate_embedding` tasks on a fleet's Redis."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.app = create_app(CommonSettings(broker_url=fleet.redis.url))
        self.client = fleet.redis.client()
        self.record = AcceptedTasks(self.client, AcceptedSettings(first_look=0.5))

    def accept(self, text: Any, **kwargs: Any) -> TaskMessage:
        """Record a task; its message is not published yet."""
        envelope = TaskMessage(
            task_id=str(uuid.uuid4()), name="generate_embedding", kwargs={"text": text, **kwargs}, priority=3
        )
        self.record.add(envelope)
        return envelope

    def publish(self, envelope: TaskMessage, *, times: int = 1) -> None:
        """Publish its message."""
        for _ in range(times):
            publish_accepted(self.app, envelope)

    def result(self, envelope: TaskMessage) -> AsyncResult:
        """Return its result."""
        return self.fleet.plain.app.AsyncResult(envelope.task_id)

    def has_forgotten(self) -> bool:
        """Whether no record of any task is left."""
        return not self.client.exists(MESSAGES, DUE, LEASES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.app.close()
