"""Publishes tasks: those that somebody waits for, and accepted ones, which are recorded first."""

import asyncio
import functools
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog
from kombu.exceptions import OperationalError

from citadel_common.contracts import AnyTaskSpec, Lane
from citadel_common.deadline import Deadline
from citadel_common.errors import StoreUnavailable
from citadel_common.redis import ERRORS, connect
from citadel_common.settings import CommonSettings
from citadel_common.tasks.accepted import AcceptedTasks, Envelope
from citadel_common.tasks.app import create_app
from citadel_common.tasks.verdict import DEADLINE_HEADER
from citadel_common.worker.pulse import publish_accepted

T = TypeVar("T")
log = structlog.get_logger(__name__)

THREADS = 4
FAILURES = (*ERRORS, OperationalError)
"""What a broker or a record that is down raises."""


class Publisher:
    """Celery's producer behind a few threads, so that a slow broker never holds up the event loop."""

    def __init__(self, settings: CommonSettings) -> None:
        self._app = create_app(settings)
        # Celery would subscribe to each result that it publishes for; `Results` does that once for all.
        self._app.conf.result_backend = "disabled://"
        self._record_client = connect(settings.results, settings.stores)
        self._accepted = AcceptedTasks(self._record_client)
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

    async def accept(self, spec: AnyTaskSpec, kwargs: dict[str, Any]) -> str:
        """Records a task, then publishes it; its id.

        From the record on the task is the workers' to finish: one that could not be published here is
        published by them.

        Raises:
            StoreUnavailable: It could not be recorded; nothing was accepted.
        """
        envelope = Envelope(task_id=str(uuid.uuid4()), name=spec.name, kwargs=kwargs, priority=spec.lane.value)
        try:
            await self._in_thread(lambda: self._accepted.add(envelope))
        except FAILURES as error:
            raise StoreUnavailable("the task could not be recorded; nothing was accepted") from error
        try:
            await self._in_thread(lambda: publish_accepted(self._app, envelope))
        except FAILURES as error:
            log.warning("accepted_task_not_published", task_id=envelope.task_id, error=type(error).__name__)
        return envelope.task_id

    async def _in_thread(self, call: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._threads, call)
        async with asyncio.timeout(self._timeout):
            return await future

    def close(self) -> None:
        """Ends the threads and closes the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._app.close()
        self._record_client.close()
