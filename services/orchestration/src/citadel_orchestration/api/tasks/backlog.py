"""How many messages wait in each queue, and the refusal of more when that is too many."""

import asyncio
import time
from typing import TYPE_CHECKING

from citadel_common.delivery.queues import lists_of
from citadel_common.errors import CitadelError, Overloaded, StoreUnavailable
from citadel_common.stores.redis import ERRORS
from citadel_contracts import Queue

if TYPE_CHECKING:
    from redis.asyncio import Redis

FRESH = 0.5
"""Seconds a reading counts."""


class Backlog:
    """Ready messages per queue, read from the broker at most every FRESH seconds."""

    def __init__(self, client: "Redis", *, limit: int, timeout: float) -> None:
        self._client = client
        self._limit = limit
        self._timeout = timeout
        self._lock = asyncio.Lock()
        self._read_at: dict[Queue, float] = {}
        self._found: dict[Queue, int | CitadelError] = {}

    async def check(self, queue: Queue) -> None:
        """Lets a new message through.

        Raises:
            Overloaded: The queue's backlog is past the limit.
            StoreUnavailable: The broker does not answer.
        """
        async with self._lock:
            if time.monotonic() - self._read_at.get(queue, float("-inf")) >= FRESH:
                self._found[queue] = await self._read(queue)
                self._read_at[queue] = time.monotonic()
        found = self._found[queue]
        if isinstance(found, CitadelError):
            raise type(found)(found.message)
        if found >= self._limit:
            raise Overloaded(f"{found} tasks wait on {queue.value!r}, the limit is {self._limit}; try again later")

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
