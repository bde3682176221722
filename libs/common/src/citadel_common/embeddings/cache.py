"""The embedding cache: vectors in Redis, and claims so that the fleet computes each text once.

A cache that is down or slow costs speed, never the request: reads then miss, writes are dropped, claims are
granted. Calls from concurrent requests are joined (`MicroBatcher`) into one round trip.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import structlog

from citadel_common.embeddings.keys import CLAIM_SUFFIX, NAMESPACE, STATS_KEY
from citadel_common.embeddings.vectors import Stored, pack, unpack
from citadel_common.micro_batching import MicroBatcher
from citadel_common.settings.common import CacheSettings
from citadel_common.stores.redis import ERRORS
from citadel_common.telemetry import NULL_METRICS, Metrics, names

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

CACHE_ERRORS: tuple[type[Exception], ...] = (*ERRORS, TimeoutError)
STATS_DELAY = 0.2
"""Seconds for which lookups are counted in memory before they are added to the fleet's statistics."""
WRITER_TTL = 24 * 3600
"""Seconds for which the cache remembers the last write of a process to the statistics."""
Outcome = Literal["hit", "miss", "error"]
"""Outcome of looking up one text; error: the cache did not answer."""
_FIELDS: dict[Outcome, str] = {"hit": "hits", "miss": "misses", "error": "errors"}
"""Fields of the statistics' hash."""
Wanted = tuple[str, int | None]
"""A key, and the length its vector must have."""
_WRITE = """
for i, key in ipairs(KEYS) do
  if ARGV[i + 2] ~= '' then redis.call('SET', key, ARGV[i + 2], 'EX', ARGV[2]) end
  redis.call('DEL', key .. ARGV[1])
end
"""
"""Stores vectors and releases the claims on them; an empty value only releases."""
_ADD_STATS = """
if redis.call('GET', KEYS[2]) == ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
for i = 3, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""
"""Adds counts to the statistics, unless this is the write added last: a write whose answer was lost is repeated."""
_CLAIM = """
local granted = {}
for i, key in ipairs(KEYS) do
  local free = redis.call('EXISTS', key) == 0 and redis.call('SET', key .. ARGV[1], '1', 'NX', 'PX', ARGV[2])
  granted[i] = free and 1 or 0
end
return granted
"""
PAUSE_AFTER_FAILURE = 1.0
"""Seconds a cache that failed is left alone, so that an outage costs no request its timeout over and over."""


class EmbeddingCache:
    """Reads, writes and claims; belongs to one event loop.

    Args:
        client: Client of the cache server, with a short socket timeout.
        settings: Time to live, precision, timeouts.
        metrics: Counters of lookups and failures.
        count_misses: False where a text that was not found goes to a worker, which looks it up again and counts it.
    """

    def __init__(
        self,
        client: "Redis",
        settings: CacheSettings,
        metrics: Metrics = NULL_METRICS,
        *,
        count_misses: bool = True,
    ) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._count_misses = count_misses
        self._paused_until = 0.0
        self._counted: Counter[str] = Counter()
        self._unsaved: Counter[str] = Counter()
        self._stats_keys = [STATS_KEY, f"{STATS_KEY}:{uuid4().hex}"]
        self._stats_write = 0
        self._saving: asyncio.Task[None] | None = None
        self._reads: MicroBatcher[Wanted, Stored | None] = MicroBatcher(self._read_counted, parallel=2)
        self._claim_script: Any = client.register_script(_CLAIM)
        self._write_script: Any = client.register_script(_WRITE)
        self._stats_script: Any = client.register_script(_ADD_STATS)
        self._claims: MicroBatcher[str, bool] = MicroBatcher(self._claim)
        self._writes: MicroBatcher[tuple[str, Stored | None], None] = MicroBatcher(self._write, parallel=2)

    async def get_many(self, keys: Sequence[str], *, size: int | None = None) -> Sequence[Stored | None]:
        """Return what is stored under `keys`, in order; None where nothing is stored.

        Args:
            keys: Cache keys.
            size: Length that the vectors must have, where known; others are removed.
        """
        return await self._reads.run([(key, size) for key in keys])

    async def peek_many(self, keys: Sequence[str], *, size: int | None = None) -> Sequence[Stored | None]:
        """Return the same without counting the lookups, for callers that wait for another process."""
        return await self._read([(key, size) for key in keys]) or [None] * len(keys)

    def count_hits(self, hits: int) -> None:
        """Count hits that the caller answered from its own copies of cached vectors."""
        self._count({"hit": hits})

    async def claim_many(self, keys: Sequence[str]) -> Sequence[bool]:
        """Claim each key; return, for each, whether the caller now computes it for the fleet.

        No, if another is, or has been since the caller looked: then the vector is there.
        """
        return await self._claims.run(keys)

    async def put_many(self, vectors: Mapping[str, Stored]) -> None:
        """Store vectors under their keys and release the claims on them."""
        await self._writes.run(list(vectors.items()))

    async def release_many(self, keys: Sequence[str]) -> None:
        """Give up claims without a vector, so that another process may try at once."""
        await self._writes.run([(key, None) for key in keys])

    async def stats(self) -> dict[str, int]:
        """Return counts since the cache was emptied (`hits`, `misses`, `errors`) and the server's (`entries`, bytes).

        Raises:
            redis.RedisError: The cache does not answer.
        """
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(STATS_KEY)
        pipe.info("memory")
        pipe.info("stats")
        pipe.dbsize()
        counts, memory, stats, entries = await pipe.execute()
        return {
            **{field: int(counts.get(field.encode(), 0)) for field in _FIELDS.values()},
            "entries": int(entries),
            "memory_bytes": int(memory["used_memory"]),
            "memory_limit_bytes": int(memory.get("maxmemory", 0)),
            "evicted": int(stats.get("evicted_keys", 0)),
        }

    async def clear(self) -> int:
        """Remove every vector and the statistics, in small steps; return how many vectors there were."""
        removed = 0
        cursor = 0
        while True:
            cursor, keys = await self._client.scan(cursor, match=f"{NAMESPACE}:*", count=1000)
            if keys:
                removed += await self._client.unlink(*keys)
            if cursor == 0:
                break
        await self._client.delete(STATS_KEY)
        return removed

    async def _read_counted(self, wanted: "Sequence[Wanted]") -> Sequence[Stored | None]:
        found = await self._read(wanted)
        if found is None:
            self._count({"error": len(wanted)})
            return [None] * len(wanted)
        hits = sum(stored is not None for stored in found)
        self._count({"hit": hits, "miss": len(found) - hits})
        return found

    async def _read(self, wanted: "Sequence[Wanted]") -> Sequence[Stored | None] | None:
        """Return what is stored under keys, in order; None when the cache does not answer."""
        keys = [key for key, _ in wanted]
        values = await self._call(self._mget(keys), "get")
        if values is None:
            return None
        found = [_usable(value, size) for value, (_, size) in zip(values, wanted, strict=True)]
        damaged = [
            key for key, value, stored in zip(keys, values, found, strict=True) if value is not None and stored is None
        ]
        if damaged:
            await self._call(self._client.unlink(*damaged), "discard")
        return found

    async def _mget(self, keys: Sequence[str]) -> list[bytes | None]:
        values: Any = await self._client.mget(keys)
        return list(values)

    def _count(self, lookups: Mapping[Outcome, int]) -> None:
        """Count lookups by outcome, and have the counts added to the fleet's statistics."""
        for outcome, texts in lookups.items():
            if texts and (outcome == "hit" or self._count_misses):
                self._metrics.count(names.CACHE_LOOKUPS, texts, outcome=outcome)
                self._counted[_FIELDS[outcome]] += texts
        if self._counted and (self._saving is None or self._saving.done()):
            self._saving = asyncio.get_running_loop().create_task(self._save_statistics())

    async def _save_statistics(self) -> None:
        """Add the counts to the fleet's, once per STATS_DELAY, until the cache has confirmed all of them."""
        while self._counted or self._unsaved:
            await asyncio.sleep(STATS_DELAY)
            if not self._unsaved:
                self._unsaved, self._counted = self._counted, Counter()
                self._stats_write += 1
            args = [self._stats_write, WRITER_TTL, *chain.from_iterable(self._unsaved.items())]
            if await self._call(self._stats_script(keys=self._stats_keys, args=args), "record") is not None:
                self._unsaved = Counter()

    async def _claim(self, keys: Sequence[str]) -> Sequence[bool]:
        ttl = int(self._settings.claim_ttl * 1000)
        granted = await self._call(self._claim_script(keys=keys, args=[CLAIM_SUFFIX, ttl]), "claim")
        return [True] * len(keys) if granted is None else [bool(answer) for answer in granted]

    async def _write(self, items: Sequence[tuple[str, Stored | None]]) -> Sequence[None]:
        values = [b"" if stored is None else pack(stored, self._settings.precision) for _, stored in items]
        args = [CLAIM_SUFFIX, self._settings.ttl, *values]
        await self._call(self._write_script(keys=[key for key, _ in items], args=args), "put")
        return [None] * len(items)

    async def _call(self, call: Any, operation: str) -> Any:
        """Return the call's answer, or None while the cache is down or slow."""
        if time.monotonic() < self._paused_until:
            call.close()
            return None
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await call
        except CACHE_ERRORS as error:
            self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE
            self._metrics.count(names.CACHE_FAILURES, 1, operation=operation)
            log.warning("cache_unavailable", operation=operation, error=type(error).__name__)
            return None

    async def aclose(self) -> None:
        """Write what is left of the statistics, unless the cache does not answer, and close the connections."""
        if self._saving is not None:
            await asyncio.wait({self._saving}, timeout=2 * STATS_DELAY)
            self._saving.cancel()
        with contextlib.suppress(*ERRORS):
            await self._client.aclose()


def _usable(value: bytes | None, size: int | None) -> Stored | None:
    stored = None if value is None else unpack(value)
    return stored if stored is None or size is None or stored.vector.size == size else None
