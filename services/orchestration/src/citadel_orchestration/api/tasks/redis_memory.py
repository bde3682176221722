"""Memory of the Redis servers of messages and results: they evict nothing, and refuse writes when they are full."""

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from citadel_common.errors import StorageFull
from citadel_common.stores.redis import ERRORS
from citadel_common.telemetry import Metrics, names

if TYPE_CHECKING:
    from redis.asyncio import Redis

FRESH = 0.5
"""Seconds that a reading of the memory counts."""
FULL = 0.95
"""Share of maxmemory from which no task is taken: the rest is for the results of those that were."""


class RedisMemory:
    """Limit of the memory in use; belongs to one event loop.

    A server that does not answer, or does not let its memory be read, has no limit here.

    Args:
        clients: Clients of the servers, by the names of their roles.
        timeout: Seconds that a server may take.
        metrics: Counts refusals.
    """

    def __init__(self, clients: "Mapping[str, Redis]", *, timeout: float, metrics: Metrics) -> None:
        self._clients = clients
        self._timeout = timeout
        self._metrics = metrics
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")
        self._problem: str | None = None

    async def check(self) -> None:
        """Check that the servers have room.

        Raises:
            StorageFull: One of them is full.
        """
        async with self._lock:
            if time.monotonic() - self._read_at >= FRESH:
                self._problem = await self._find_problem()
                self._read_at = time.monotonic()
        if self._problem is not None:
            self._metrics.count(names.REFUSED, 1, reason="redis_memory")
            raise StorageFull(self._problem)

    async def _find_problem(self) -> str | None:
        for role, client in self._clients.items():
            try:
                async with asyncio.timeout(self._timeout):
                    memory: dict[str, Any] = await client.info("memory")
            except ERRORS:
                continue
            used = memory["used_memory"] - memory.get("mem_not_counted_for_evict", 0)
            limit = memory.get("maxmemory", 0)
            if limit and used >= FULL * limit and memory.get("maxmemory_policy") == "noeviction":
                return (
                    f"Redis ({role}) uses {used / 2**20:.0f} of {limit / 2**20:.0f} MiB (maxmemory); try again when"
                    " queued tasks have ended, or give it more memory"
                )
        return None
