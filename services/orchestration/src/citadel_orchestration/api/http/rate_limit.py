"""Rate limit: requests per caller and minute, counted in Redis for all processes, or here while Redis is away."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from citadel_common.embeddings.cache import CACHE_ERRORS
from citadel_common.micro_batching import MicroBatcher
from citadel_common.telemetry import Metrics, names
from citadel_orchestration.api.http.errors import RateLimited

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

WINDOW = 60
"""Seconds in which requests are counted together."""
TIMEOUT = 0.5
"""Seconds that Redis may take to count requests."""
KEY_PREFIX = "citadel:rate:"
PAUSE_AFTER_FAILURE = 1.0
"""Seconds in which requests are counted here after Redis has failed."""
MAX_CALLERS = 10_000
"""Callers that are counted here at once; beyond it the counts begin anew."""
# Only requests that are allowed count: else a client that goes on asking would never be served again.
# The server's clock names the windows: API processes on hosts whose clocks differ count in the same ones.
_COUNT = """
local time, length = redis.call('TIME'), tonumber(ARGV[3])
local now = time[1] + time[2] / 1000000
local window, passed = math.floor(now / length), now % length
local key = KEYS[1] .. ':' .. string.format('%d', window)
local count = tonumber(redis.call('GET', key) or 0)
local before = tonumber(redis.call('GET', KEYS[1] .. ':' .. string.format('%d', window - 1)) or 0)
local free = math.floor(tonumber(ARGV[2]) - count - before * (1 - passed / length))
local allowed = math.max(0, math.min(tonumber(ARGV[1]), free))
if allowed > 0 then
  redis.call('INCRBY', key, allowed)
  redis.call('EXPIRE', key, 2 * length)
end
return {allowed, count + allowed, before, tostring(passed)}
"""


class RateLimit:
    """Counts requests of this minute, and those of the one before by the share of it that is less than a minute ago.

    So a caller who has used up the limit gets it back gradually, and not at once when a minute begins.
    Requests that arrive together are counted by one call of Redis on one connection.

    Args:
        client: Client of the Redis that holds the counts.
        per_minute: Requests allowed; None for no limit.
        processes: Server processes that share the limit while Redis is away.
        metrics: Counts refusals.
    """

    def __init__(self, client: "Redis", per_minute: int | None, *, processes: int, metrics: Metrics) -> None:
        self._client = client
        self._limit = per_minute
        self._own_limit = max(1, (per_minute or 0) // processes)
        self._metrics = metrics
        self._batcher: MicroBatcher[str, float | None] = MicroBatcher(self._count)
        self._paused_until = 0.0
        self._own: dict[str, tuple[float, int, int]] = {}

    async def check(self, caller: str) -> None:
        """Count a request of `caller`.

        Raises:
            RateLimited: The caller has reached the limit.
        """
        if self._limit is None:
            return
        (wait,) = await self._batcher.run([caller])
        if wait is None:
            return
        self._metrics.count(names.API_REFUSED, 1, reason=RateLimited.code)
        seconds = max(1, math.ceil(wait))
        raise RateLimited(
            f"more than {self._limit} requests in a minute; try again in {seconds} s", retry_after=seconds
        )

    async def _count(self, callers: Sequence[str]) -> Sequence[float | None]:
        """Count one request of each caller; return None for each that is allowed, else seconds to wait."""
        wanted, now = Counter(callers), time.monotonic()
        found = await self._count_in_redis(wanted) if now >= self._paused_until else None
        if found is None:
            found = {caller: self._count_here(caller, number, now) for caller, number in wanted.items()}
        verdicts = {
            caller: iter([None] * allowed + [wait] * (wanted[caller] - allowed))
            for caller, (allowed, wait) in found.items()
        }
        return [next(verdicts[caller]) for caller in callers]

    async def _count_in_redis(self, wanted: Counter[str]) -> dict[str, tuple[int, float]] | None:
        """Return how many requests of each caller are allowed, and the wait of the others; None without Redis."""
        limit: int = self._limit or 0
        try:
            async with asyncio.timeout(TIMEOUT):
                pipe: Any = self._client.pipeline(transaction=False)
                for caller, number in wanted.items():
                    pipe.eval(_COUNT, 1, KEY_PREFIX + caller, number, limit, WINDOW)
                answers = await pipe.execute()
        except CACHE_ERRORS as error:
            self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE
            log.warning("rate_limit_counts_here", error=type(error).__name__, per_process=self._own_limit)
            return None
        return {
            caller: (allowed, _wait(count, before, limit, float(passed)))
            for caller, (allowed, count, before, passed) in zip(wanted, answers, strict=True)
        }

    def _count_here(self, caller: str, number: int, now: float) -> tuple[int, float]:
        """Return how many requests of a caller are allowed here, and the wait of the others."""
        window, passed = divmod(now, WINDOW)
        if len(self._own) >= MAX_CALLERS and caller not in self._own:
            self._own.clear()
        last, count, before = self._own.get(caller, (window, 0, 0))
        if last != window:
            count, before = 0, count if last == window - 1 else 0
        allowed = max(0, min(number, math.floor(self._own_limit - count - before * (1 - passed / WINDOW))))
        self._own[caller] = (window, count + allowed, before)
        return allowed, _wait(count + allowed, before, self._own_limit, passed)


def _wait(count: int, before: int, limit: int, passed: float) -> float:
    """Return the seconds until one more request is allowed.

    Args:
        count: Requests in this window.
        before: Requests in the window before it.
        limit: Requests allowed in a window's length.
        passed: Seconds of this window that have passed.
    """
    left = WINDOW - passed
    if count < limit:
        return left - WINDOW * (limit - 1 - count) / before if before else 0.0
    return left + WINDOW * (1 - (limit - 1) / count)
