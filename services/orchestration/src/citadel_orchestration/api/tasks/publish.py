"""Publishes tasks: those that somebody waits for, and accepted ones, which are recorded first."""

import asyncio
import contextvars
import functools
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog
from kombu.exceptions import OperationalError

from citadel_common.deadline import Deadline
from citadel_common.delivery.accepted_tasks import AcceptedTasks, TaskMessage, publish_accepted
from citadel_common.errors import StoreUnavailable
from citadel_common.micro_batching import MicroBatcher
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.postgres import Database
from citadel_common.stores.redis import ERRORS, connect
from citadel_common.tasks.app import create_app
from citadel_common.tasks.failure_policy import DEADLINE_HEADER
from citadel_common.telemetry import tracing
from citadel_contracts import AnyTaskSpec, Lane
from citadel_orchestration.db import accepted_tasks

T = TypeVar("T")
log = structlog.get_logger(__name__)

THREADS = 4
FAILURES = (*ERRORS, OperationalError)
"""What a broker or a store that is down raises."""
MOST_AT_ONCE = 64
"""Accepted tasks recorded in one transaction: those of requests that come at the same time."""


class Publisher:
    """Celery's producer behind a few threads, so that a slow broker never holds up the event loop."""

    def __init__(self, settings: CommonSettings) -> None:
        self._app = create_app(settings)
        # Celery would subscribe to each result that it publishes for; `Results` does that once for all.
        self._app.conf.result_backend = "disabled://"
        self._record_client = connect(settings.results, settings.stores)
        self._accepted = AcceptedTasks(self._record_client, settings.accepted)
        self._timeout = settings.stores.timeout + settings.stores.connect_timeout
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="publish")

    async def send(
        self, spec: AnyTaskSpec, kwargs: dict[str, Any], *, task_id: str, lane: Lane, deadline: Deadline
    ) -> None:
        """Publishes a task that somebody waits for until `deadline`.

        Raises:
            StoreUnavailable: The broker does not answer.
        """
        call = functools.partial(
            self._app.send_task,
            spec.name,
            kwargs=kwargs,
            task_id=task_id,
            priority=lane.value,
            expires=max(1.0, deadline.remaining),
            headers={DEADLINE_HEADER: deadline.to_epoch()},
        )
        try:
            await self._in_thread(call)
        except FAILURES as error:
            raise StoreUnavailable("the broker does not answer; check that Redis runs") from error

    async def offer(self, envelope: TaskMessage) -> None:
        """Publishes an accepted task; one that cannot be published here is published by the workers."""

        def call() -> None:
            self._accepted.add(envelope)
            publish_accepted(self._app, envelope)

        try:
            await self._in_thread(call)
        except FAILURES as error:
            log.warning("accepted_task_not_published", task_id=envelope.task_id, error=type(error).__name__)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        within = contextvars.copy_context()
        future = asyncio.get_running_loop().run_in_executor(self._threads, within.run, call)
        async with asyncio.timeout(self._timeout):
            return await future

    def close(self) -> None:
        """Ends the threads and closes the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._app.close()
        self._record_client.close()


class Acceptance:
    """Records tasks, then has them published; belongs to one event loop.

    Args:
        database: The record.
        publisher: Publishes them.
        first_look: Seconds after which workers look whether a task has been lost.
    """

    def __init__(self, database: Database, publisher: Publisher, *, first_look: float) -> None:
        self._database = database
        self._publisher = publisher
        self._first_look = first_look
        self._recording: MicroBatcher[TaskMessage, None] = MicroBatcher(self._record, max_size=MOST_AT_ONCE)

    async def accept(self, spec: AnyTaskSpec, kwargs: dict[str, Any]) -> str:
        """Records a task and has it published; its id.

        From the record on the task is the workers' to finish.

        Raises:
            StoreUnavailable: It could not be recorded; nothing was accepted.
        """
        envelope = TaskMessage(
            task_id=str(uuid.uuid4()),
            name=spec.name,
            kwargs=kwargs,
            priority=spec.lane.value,
            trace=tracing.carrier(),
        )
        await self._recording.run([envelope])
        await self._publisher.offer(envelope)
        return envelope.task_id

    async def is_recorded(self, task_id: str) -> bool:
        """Whether the task was accepted, and is not known to have ended.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        try:
            found = uuid.UUID(task_id)
        except ValueError:
            return False

        def call() -> bool:
            with self._database.cursor() as cursor:
                return accepted_tasks.exists(cursor, found)

        return await asyncio.to_thread(call)

    async def _record(self, tasks: Sequence[TaskMessage]) -> Sequence[None]:
        def call() -> None:
            with self._database.cursor() as cursor:
                accepted_tasks.add(cursor, tasks, first_look=self._first_look)

        await asyncio.to_thread(call)
        return [None] * len(tasks)
