"""Reads and removes cache entries, a batch in one round trip each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from citadel_common.embeddings.keys import NAMESPACE
from citadel_maintenance.scanning import Step, scan

if TYPE_CHECKING:
    from redis import Redis

PATTERN = f"{NAMESPACE}:*"
COLDEST = 255


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What Redis tells of an entry.

    Attributes:
        key: Its key.
        ttl: Milliseconds; -1 for never, -2 for a key that is gone.
        bucket: How cold it is, 0 to COLDEST; None where that was not asked for.
    """

    key: str
    ttl: int
    bucket: int | None


class Entries:
    """The entries of a cache; nothing here counts as a use of one.

    Args:
        client: Client of the cache.
        count: Keys looked at per step.
        coldness: Whether to ask how cold entries are.
    """

    def __init__(self, client: "Redis", *, count: int, coldness: bool) -> None:
        self._client = client
        self._count = count
        self._ask = self._coldness_of_policy() if coldness else None

    def step(self, cursor: int) -> tuple[list[Facts], int]:
        """The next entries and the cursor after them."""
        found: Step = scan(self._client, PATTERN, cursor=cursor, count=self._count)
        return self._facts(found.keys), found.cursor

    def sizes(self, keys: Sequence[str]) -> list[int]:
        """Bytes that entries take, 0 for one that is gone."""
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.memory_usage(_name(key))
        return [int(size or 0) for size in pipe.execute()] if keys else []

    def remove(self, keys: Sequence[str]) -> int:
        """Removes entries; how many were still there."""
        return int(self._client.unlink(*(_name(key) for key in keys))) if keys else 0

    def _facts(self, keys: Sequence[str]) -> list[Facts]:
        if not keys:
            return []
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.pttl(_name(key))
            if self._ask is not None:
                pipe.object(self._ask, _name(key))
        answers = pipe.execute(raise_on_error=False)
        rows = [answers] if self._ask is None else [answers[0::2], answers[1::2]]
        buckets = [None] * len(keys) if self._ask is None else [self._bucket(answer) for answer in rows[1]]
        return [
            Facts(key=key, ttl=_checked(ttl), bucket=bucket)
            for key, ttl, bucket in zip(keys, rows[0], buckets, strict=True)
        ]

    def _coldness_of_policy(self) -> str:
        """Redis keeps either the time since the last use or how often an entry is used, never both."""
        memory: Any = self._client.info("memory")
        return "FREQ" if "lfu" in str(memory.get("maxmemory_policy", "")) else "IDLETIME"

    def _bucket(self, answer: Any) -> int:
        if not isinstance(answer, int):
            return 0  # gone meanwhile, or the policy has changed
        if self._ask == "FREQ":
            return COLDEST - min(answer, COLDEST)
        return min(int(8 * math.log2(1 + answer)), COLDEST)


def _checked(answer: Any) -> int:
    if isinstance(answer, Exception):
        raise answer
    return int(answer)


def _name(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")
