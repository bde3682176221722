"""Waits for task results: one pub/sub connection per process, and polling for what it may have missed.

The ids of the tasks that this process waits for begin with the same characters, so that one pattern
subscription, made once, hears of all of them: nothing is subscribed per request, and no result can come before
its subscription.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from citadel_common.errors import DeadlineExceeded, StoreUnavailable, from_result
from citadel_common.micro_batching import MicroBatcher
from citadel_common.stores.redis import ERRORS

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

META_PREFIX = "celery-task-meta-"
"""Celery's prefix of the keys and channels of results."""
POLL_INTERVAL = 1.0
"""Seconds between looks for results whose announcement was lost."""
PATIENCE = 8.0
"""Seconds a result store may be away before those who wait are told."""
_RECONNECT_DELAY = 0.5
_FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


@dataclass(frozen=True, eq=False)
class Expected:
    """A result to come."""

    task_id: str
    future: "asyncio.Future[dict[str, Any]]"


class Results:
    """The results that this process waits for; belongs to one event loop."""

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._stem = uuid.uuid4().hex[:8]
        self._waiting: dict[str, Expected] = {}
        self._reachable_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._forgetting: MicroBatcher[str, None] = MicroBatcher(self._forget)
        self._forgets: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Begins to listen."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._listen()), loop.create_task(self._poll())]

    async def stop(self) -> None:
        """Ends listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._forgets, return_exceptions=True)

    def expect(self) -> Expected:
        """An id for a task about to be published, and its result to come."""
        task_id = self._stem + str(uuid.uuid4())[8:]
        expected = Expected(task_id, asyncio.get_running_loop().create_future())
        self._waiting[task_id] = expected
        return expected

    def cancel(self, expected: Expected) -> None:
        """Forgets about a task that nobody waits for."""
        self._waiting.pop(expected.task_id, None)

    async def wait(self, expected: Expected, *, timeout: float) -> Any:
        """What the task returned; its result is removed from the store.

        Args:
            expected: From `expect`.
            timeout: Seconds.

        Raises:
            DeadlineExceeded: It did not end in time.
            CitadelError: It failed.
        """
        try:
            async with asyncio.timeout(timeout):
                meta = await expected.future
        except TimeoutError:
            raise DeadlineExceeded(f"no worker finished this within {timeout:.0f} s; try again later") from None
        finally:
            self.cancel(expected)
        self._forget_soon(expected.task_id)
        return result_of(meta)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(*ERRORS):
                await self._listen_once()
            log.warning("results_channel_lost")
            await asyncio.sleep(_RECONNECT_DELAY)

    async def _listen_once(self) -> None:
        async with self._client.pubsub() as channel:
            await channel.psubscribe(f"{META_PREFIX}{self._stem}-*")
            await self._look(list(self._waiting))
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=5.0)
                if message is not None:
                    self._settle(message["channel"].decode().removeprefix(META_PREFIX), message["data"])

    async def _poll(self) -> None:
        earlier: set[str] = set()
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            overdue = [task_id for task_id in self._waiting if task_id in earlier]
            earlier = set(self._waiting)
            try:
                await self._look(overdue)
                self._reachable_at = time.monotonic()
            except ERRORS as error:
                self._lose_patience(error)

    async def _look(self, task_ids: Sequence[str]) -> None:
        """Asks the store; a result is often there before its announcement is."""
        if not task_ids:
            return
        values: Any = await self._client.mget([META_PREFIX + task_id for task_id in task_ids])
        for task_id, value in zip(task_ids, values, strict=True):
            if value is not None:
                self._settle(task_id, value)

    def _settle(self, task_id: str, stored: bytes) -> None:
        expected = self._waiting.get(task_id)
        if expected is None or expected.future.done():
            return
        meta = orjson.loads(stored)
        if meta.get("status") in _FINAL:
            expected.future.set_result(meta)

    def _lose_patience(self, error: Exception) -> None:
        if time.monotonic() - self._reachable_at < PATIENCE:
            return
        log.error("results_unreachable", error=type(error).__name__, waiting=len(self._waiting))
        for expected in self._waiting.values():
            if not expected.future.done():
                expected.future.set_exception(StoreUnavailable())

    def _forget_soon(self, task_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._forgetting.run([META_PREFIX + task_id]))
        self._forgets.add(task)
        task.add_done_callback(self._forgets.discard)

    async def _forget(self, keys: Sequence[str]) -> Sequence[None]:
        with contextlib.suppress(*ERRORS):
            await self._client.unlink(*keys)
        return [None] * len(keys)


def result_of(meta: dict[str, Any]) -> Any:
    """What a task that has ended returned.

    Raises:
        CitadelError: It failed, or was revoked.
    """
    if meta["status"] == "SUCCESS":
        return meta["result"]
    if meta["status"] == "REVOKED":
        raise DeadlineExceeded
    raise from_result(meta.get("result"))
