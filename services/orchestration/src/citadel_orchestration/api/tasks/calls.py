"""Calls of tasks: publish one, wait for its result.

One Redis subscription per process announces results; polling finds those whose announcement was lost. The ids of all
tasks that a process calls begin with the same characters, so that one pattern, subscribed to at the start, covers
them: no request subscribes, and no result can arrive before its subscription.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import redis
import structlog
from celery.states import READY_STATES

from citadel_common.deadline import Deadline
from citadel_common.delivery.accepted_tasks import RESULT_PREFIX
from citadel_common.errors import DeadlineExceeded, Overloaded, StoreUnavailable, from_result
from citadel_common.micro_batching import MicroBatcher
from citadel_common.stores.redis import ERRORS
from citadel_contracts import AnyTaskSpec, Lane
from citadel_orchestration.api.tasks.publisher import BacklogLimit, Publisher

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

POLL_INTERVAL = 1.0
"""Seconds between polls."""
MAX_OUTAGE = 8.0
"""Seconds that the results store may be down before the requests that wait for results fail."""
_RECONNECT_DELAY = 0.5
_QUIET, _MOST_QUIET = 2.0, 6.0
"""Seconds without a message after which the server is asked for one, and after which the connection is given up.

Of a connection that is lost without a word nothing else tells: redis-py reads on for ever.
"""


@dataclass(frozen=True, eq=False)
class PendingResult:
    """Result of a task that has not ended."""

    task_id: str
    future: "asyncio.Future[dict[str, Any]]"


class ResultListener:
    """Results that this process waits for; belongs to one event loop.

    Args:
        client: Client of the results store.
    """

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._stem = uuid.uuid4().hex[:8]
        self._waiting: dict[str, PendingResult] = {}
        self._reachable_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._removal: MicroBatcher[str, None] = MicroBatcher(self._remove)
        self._removals: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Start to listen."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._listen()), loop.create_task(self._poll())]

    async def stop(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._removals, return_exceptions=True)

    def expect(self) -> PendingResult:
        """Return the pending result, with a new id, of a task about to be published."""
        task_id = self._stem + str(uuid.uuid4())[8:]
        pending = PendingResult(task_id, asyncio.get_running_loop().create_future())
        self._waiting[task_id] = pending
        return pending

    def cancel(self, pending: PendingResult) -> None:
        """Stop waiting for a result."""
        self._waiting.pop(pending.task_id, None)

    async def wait(self, pending: PendingResult, *, timeout: float) -> Any:
        """Return the result of a task and remove it from the store.

        Args:
            pending: The pending result, from `expect`.
            timeout: Seconds.

        Raises:
            DeadlineExceeded: The task did not end in time.
            CitadelError: The task failed.
        """
        try:
            async with asyncio.timeout(timeout):
                meta = await pending.future
        except TimeoutError:
            raise DeadlineExceeded(f"no worker finished this within {timeout:.0f} s; try again later") from None
        finally:
            self.cancel(pending)
        self._remove_soon(pending.task_id)
        return _result_of(meta)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(*ERRORS):
                await self._listen_once()
            log.warning("results_channel_lost")
            await asyncio.sleep(_RECONNECT_DELAY)

    async def _listen_once(self) -> None:
        async with self._client.pubsub() as channel:
            await channel.psubscribe(f"{RESULT_PREFIX}{self._stem}-*")
            # Fetches results whose announcements were missed while the connection was lost.
            await self._fetch(list(self._waiting))
            heard_at = time.monotonic()
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=_QUIET)
                if message is not None:
                    heard_at = time.monotonic()
                    self._take(message)
                elif time.monotonic() - heard_at > _MOST_QUIET:
                    raise redis.ConnectionError("the channel of results is silent")
                else:
                    await channel.ping()

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "pmessage":
            self._settle(message["channel"].decode().removeprefix(RESULT_PREFIX), message["data"])

    async def _poll(self) -> None:
        earlier: set[str] = set()
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            overdue = [task_id for task_id in self._waiting if task_id in earlier]
            earlier = set(self._waiting)
            try:
                await self._fetch(overdue)
                self._reachable_at = time.monotonic()
            except ERRORS as error:
                self._check_outage(error)

    async def _fetch(self, task_ids: Sequence[str]) -> None:
        if not task_ids:
            return
        values: Any = await self._client.mget([RESULT_PREFIX + task_id for task_id in task_ids])
        for task_id, value in zip(task_ids, values, strict=True):
            if value is not None:
                self._settle(task_id, value)

    def _settle(self, task_id: str, stored: bytes) -> None:
        pending = self._waiting.get(task_id)
        if pending is None or pending.future.done():
            return
        meta = orjson.loads(stored)
        if meta.get("status") in READY_STATES:
            pending.future.set_result(meta)

    def _check_outage(self, error: Exception) -> None:
        if time.monotonic() - self._reachable_at < MAX_OUTAGE:
            return
        log.error("results_unreachable", error=type(error).__name__, waiting=len(self._waiting))
        for pending in self._waiting.values():
            if not pending.future.done():
                pending.future.set_exception(StoreUnavailable())

    def _remove_soon(self, task_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._removal.run([RESULT_PREFIX + task_id]))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _remove(self, keys: Sequence[str]) -> Sequence[None]:
        with contextlib.suppress(*ERRORS):
            await self._client.unlink(*keys)
        return [None] * len(keys)


class TaskCaller:
    """Calls tasks and waits for their results; bounds the calls under way.

    Args:
        publisher: Publishes tasks.
        results: Receives their results.
        backlog: Refuses calls while too many messages wait.
        timeout: Seconds that one call may take.
        max_waiting: Most calls under way in this process.
    """

    def __init__(
        self, publisher: Publisher, results: ResultListener, backlog: BacklogLimit, *, timeout: float, max_waiting: int
    ) -> None:
        self._publisher = publisher
        self._results = results
        self._backlog = backlog
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._waiting = 0

    async def call(self, spec: AnyTaskSpec, arguments: dict[str, Any], *, lane: Lane) -> Any:
        """Publish a task and return its result.

        Raises:
            Overloaded: Too many calls are under way, or too many messages wait.
            DeadlineExceeded: The task did not end in time.
            CitadelError: The task failed.
        """
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} requests wait for results, the limit is {self._max_waiting}")
        self._waiting += 1
        try:
            await self._backlog.check(spec.queue)
            return await self._call(spec, arguments, lane)
        finally:
            self._waiting -= 1

    async def _call(self, spec: AnyTaskSpec, arguments: dict[str, Any], lane: Lane) -> Any:
        deadline = Deadline.after(self._timeout)
        pending = self._results.expect()
        try:
            await self._publisher.publish(spec, arguments, task_id=pending.task_id, lane=lane, deadline=deadline)
        except BaseException:
            self._results.cancel(pending)
            raise
        return await self._results.wait(pending, timeout=self._timeout)


def _result_of(meta: dict[str, Any]) -> Any:
    """Return the result of a task that has ended.

    Raises:
        CitadelError: The task failed or was revoked.
    """
    if meta["status"] == "SUCCESS":
        return meta["result"]
    if meta["status"] == "REVOKED":
        raise DeadlineExceeded
    raise from_result(meta.get("result"))
