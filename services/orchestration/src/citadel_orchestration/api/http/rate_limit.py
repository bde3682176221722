"""Rate limit: requests per caller and minute, counted in Redis across all processes."""

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from citadel_common.embeddings.cache import CACHE_ERRORS
from citadel_orchestration.api.http.errors import RateLimited

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

WINDOW = 60
"""Seconds in which requests are counted together."""
TIMEOUT = 0.5
"""Seconds that Redis may take to count a request."""
KEY_PREFIX = "citadel:rate:"
PAUSE_AFTER_FAILURE = 1.0
"""Seconds without a limit after Redis has failed."""


class RateLimit:
    """Fixed windows of a minute. Without Redis there is no limit.

    Args:
        client: Client of the Redis that holds the counts.
        per_minute: Requests allowed; None for no limit.
    """

    def __init__(self, client: "Redis", per_minute: int | None) -> None:
        self._client = client
        self._limit = per_minute
        self._paused_until = 0.0

    async def check(self, caller: str) -> None:
        """Count a request of `caller`.

        Raises:
            RateLimited: The caller has reached the limit.
        """
        if self._limit is None or time.monotonic() < self._paused_until:
            return
        window, passed = divmod(time.time(), WINDOW)
        try:
            async with asyncio.timeout(TIMEOUT):
                count = await self._count(f"{KEY_PREFIX}{caller}:{window:.0f}")
        except CACHE_ERRORS as error:
            self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE
            log.warning("rate_limit_unavailable", error=type(error).__name__)
            return
        if count > self._limit:
            wait = max(1, round(WINDOW - passed))
            raise RateLimited(
                f"more than {self._limit} requests in a minute; try again in {wait} s",
                retry_after=wait,
            )

    async def _count(self, key: str) -> int:
        pipe = self._client.pipeline(transaction=False)
        pipe.incr(key)
        pipe.pexpire(key, WINDOW * 1000)
        count, _ = await pipe.execute()
        return int(count)
