"""Publishing of tasks, and the limit on how many may wait in a queue."""

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from kombu.exceptions import OperationalError

from citadel_common.deadline import Deadline
from citadel_common.delivery.accepted_tasks import AcceptedTasks, TaskMessage, publish_accepted
from citadel_common.delivery.queues import lists_of
from citadel_common.errors import CitadelError, Overloaded, StorageFull, StoreUnavailable
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.redis import ERRORS, connect, is_full
from citadel_common.tasks.app import clock_of
from citadel_common.tasks.failure_policy import DEADLINE_HEADER
from citadel_common.telemetry import NULL_METRICS, Metrics, names
from citadel_contracts import AnyTaskSpec, Lane, Queue
from citadel_orchestration.api.tasks.redis_memory import RedisMemory

if TYPE_CHECKING:
    from celery import Celery
    from redis.asyncio import Redis

T = TypeVar("T")
log = structlog.get_logger(__name__)

THREADS = 4
FAILURES = (*ERRORS, OperationalError)
"""Exceptions raised when the broker or the results store is down."""
FRESH = 0.5
"""Seconds that a reading of a queue's length counts."""
MOMENT = 0.5
"""Seconds that a submission which does not need the broker waits for it."""
PAUSE = 5.0
"""Seconds in which such submissions do not ask a broker that has failed."""


class Threads:
    """A few threads for blocking calls, which would block the event loop."""

    def __init__(self, count: int, *, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, call: Callable[[], T]) -> T:
        """Run a callable in a thread, with the caller's context variables, and return its result."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._executor, context.run, call)

    def close(self) -> None:
        """Drop calls that have not begun; does not wait for the others."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Publisher:
    """Publishes tasks in threads of its own, so that a slow broker never blocks the event loop.

    Args:
        app: Celery app of a producer.
        settings: Settings of the process.
    """

    def __init__(self, app: "Celery", settings: CommonSettings) -> None:
        self._app = app
        self._results = connect(settings.results, settings.stores)
        self._accepted = AcceptedTasks(self._results, settings.accepted)
        self._timeout = settings.stores.timeout + settings.stores.connect_timeout
        self._threads = Threads(THREADS, name="publish")

    async def publish(
        self, spec: AnyTaskSpec, kwargs: dict[str, Any], *, task_id: str, lane: Lane, deadline: Deadline
    ) -> None:
        """Publish a task whose result the caller awaits until `deadline`.

        Raises:
            StorageFull: The broker has no memory left.
            StoreUnavailable: The broker does not answer.
        """

        def call() -> None:
            self._app.send_task(
                spec.name,
                kwargs=kwargs,
                task_id=task_id,
                priority=lane.value,
                expires=max(1.0, deadline.remaining),
                headers={DEADLINE_HEADER: clock_of(self._app).time_of(deadline)},
            )

        try:
            await self._in_time(call)
        except FAILURES as error:
            if is_full(error):
                raise StorageFull("the broker has no memory left (maxmemory); try again later") from error
            raise StoreUnavailable("the broker does not answer; check that Redis runs") from error

    async def publish_accepted(self, message: TaskMessage) -> None:
        """Publish an accepted task; if that fails, the workers publish it later."""

        def call() -> None:
            self._accepted.add(message)
            publish_accepted(self._app, message)

        try:
            await self._in_time(call)
        except FAILURES as error:
            log.warning("accepted_task_not_published", task_id=message.task_id, error=type(error).__name__)

    async def _in_time(self, call: Callable[[], object]) -> None:
        async with asyncio.timeout(self._timeout):
            await self._threads.run(call)

    def close(self) -> None:
        """End the threads and close the connections."""
        self._threads.close()
        self._results.close()


class BacklogLimit:
    """Limit of ready messages per queue; the broker is asked for a queue's length at most every `FRESH` seconds.

    Args:
        client: Client of the broker's Redis.
        limit: Messages from which on a queue takes no more.
        timeout: Seconds that the broker may take.
        memory: Limit of the servers' memory.
        metrics: Counts refusals.
    """

    def __init__(
        self,
        client: "Redis",
        *,
        limit: int,
        timeout: float,
        memory: RedisMemory,
        metrics: Metrics = NULL_METRICS,
    ) -> None:
        self._memory = memory
        self._client = client
        self._limit = limit
        self._timeout = timeout
        self._metrics = metrics
        self._lock = asyncio.Lock()
        self._unknown_until = 0.0
        self._read_at: dict[Queue, float] = {}
        self._lengths: dict[Queue, int | CitadelError] = {}

    async def check(self, queue: Queue) -> None:
        """Check that the queue takes one more message.

        Raises:
            Overloaded: The queue has reached the limit.
            StorageFull: Redis has no room for a task.
            StoreUnavailable: The broker does not answer.
        """
        await self._check_length(queue)
        await self._memory.check()

    async def _check_length(self, queue: Queue) -> None:
        async with self._lock:
            if time.monotonic() - self._read_at.get(queue, float("-inf")) >= FRESH:
                self._lengths[queue] = await self._read(queue)
                self._read_at[queue] = time.monotonic()
        length = self._lengths[queue]
        if isinstance(length, CitadelError):
            # A new instance: one exception raised for several requests would collect all their tracebacks.
            raise type(length)(length.message)
        if length >= self._limit:
            self._metrics.count(names.REFUSED, 1, reason="queue")
            raise Overloaded(f"{length} tasks wait in queue {queue.value!r}, the limit is {self._limit}; try later")

    async def check_if_known(self, queue: Queue) -> None:
        """Check the queue unless the broker is down or slow: runs are recorded in PostgreSQL and do not need it.

        Raises:
            Overloaded: The queue has reached the limit.
        """
        if time.monotonic() < self._unknown_until:
            return
        try:
            async with asyncio.timeout(MOMENT):
                await self._check_length(queue)
        except (TimeoutError, StoreUnavailable):
            self._unknown_until = time.monotonic() + PAUSE

    async def _read(self, queue: Queue) -> int | CitadelError:
        pipe = self._client.pipeline(transaction=False)
        for name in lists_of(queue):
            pipe.llen(name)
        try:
            async with asyncio.timeout(self._timeout):
                lengths: list[int] = await pipe.execute()
        except ERRORS:
            return StoreUnavailable("the broker does not answer; check that Redis runs")
        return sum(lengths)
