"""Reading and removing cache entries, each batch in one round trip."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from citadel_common.embeddings.keys import NAMESPACE
from citadel_maintenance.scanning import scan

if TYPE_CHECKING:
    from redis import Redis

PATTERN = f"{NAMESPACE}:*"
COLDEST = 255


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """Redis' data on one key.

    Attributes:
        key: The key.
        ttl: Milliseconds; -1 if it never expires, -2 if the key is gone.
        bucket: How cold the entry is, from 0 to COLDEST; None if that was not read.
    """

    key: str
    ttl: int
    bucket: int | None


class CacheEntries:
    """The entries of a cache. No call counts as a use of an entry.

    Args:
        client: Client of the cache.
        count: Keys examined per step.
        coldness: Whether to read how cold entries are.
    """

    def __init__(self, client: "Redis", *, count: int, coldness: bool) -> None:
        self._client = client
        self._count = count
        self._subcommand = self._coldness_subcommand() if coldness else None

    def scan(self, cursor: int) -> tuple[list[CacheEntry], int]:
        """Return the next entries, and the cursor after them; 0 at the end."""
        keys, next_cursor = scan(self._client, PATTERN, cursor=cursor, count=self._count)
        return self._read(keys), next_cursor

    def sizes(self, keys: Sequence[str]) -> list[int]:
        """Return the bytes that entries take; 0 for one that is gone."""
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.memory_usage(_encoded(key))
        return [int(size or 0) for size in pipe.execute()] if keys else []

    def remove(self, keys: Sequence[str]) -> int:
        """Remove entries; return how many still existed."""
        return int(self._client.unlink(*(_encoded(key) for key in keys))) if keys else 0

    def _read(self, keys: Sequence[str]) -> list[CacheEntry]:
        if not keys:
            return []
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.pttl(_encoded(key))
            if self._subcommand is not None:
                pipe.object(self._subcommand, _encoded(key))
        answers = pipe.execute(raise_on_error=False)  # OBJECT fails for a key that is gone; that must not fail the rest
        ttls, buckets = answers, cast("list[int | None]", [None] * len(keys))
        if self._subcommand is not None:
            ttls, buckets = answers[0::2], [self._bucket(answer) for answer in answers[1::2]]
        return [
            CacheEntry(key=key, ttl=_checked(ttl), bucket=bucket)
            for key, ttl, bucket in zip(keys, ttls, buckets, strict=True)
        ]

    def _coldness_subcommand(self) -> str:
        """Return OBJECT's subcommand. Redis keeps either the idle time or the use count of an entry, never both."""
        memory: Any = self._client.info("memory")
        return "FREQ" if "lfu" in str(memory.get("maxmemory_policy", "")) else "IDLETIME"

    def _bucket(self, answer: Any) -> int:
        if not isinstance(answer, int):
            return 0  # the key is gone by now, or the policy has changed
        if self._subcommand == "FREQ":
            return COLDEST - min(answer, COLDEST)
        return min(int(8 * math.log2(1 + answer)), COLDEST)  # eight buckets per doubling of the idle seconds


def _checked(answer: Any) -> int:
    if isinstance(answer, Exception):
        raise answer
    return int(answer)


def _encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")
