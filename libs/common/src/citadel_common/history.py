"""The history of health checks and system metrics: sorted sets in the result store, by time.

Members are JSON objects, an entry with the time as `at`. A reader on asyncio asks the same sets itself, by `key_of`
and `parse`.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

import orjson

from citadel_common.delivery.server_clock import ServerClock
from citadel_common.timestamps import from_epoch

if TYPE_CHECKING:
    from redis import Redis

Kind = Literal["health", "metrics"]
KINDS: tuple[Kind, ...] = ("health", "metrics")
PREFIX = "citadel:history:"
MAX_ENTRIES = 10_080
TTL = 7 * 24 * 3600


def key_of(kind: Kind) -> str:
    """Return the key of a kind's sorted set; scores are seconds since the epoch."""
    return f"{PREFIX}{kind}"


def parse(member: bytes | str) -> dict[str, Any]:
    """Return an entry as it was recorded, with `at` (ISO 8601)."""
    entry: dict[str, Any] = orjson.loads(member)
    return entry


class History:
    """Entries of health checks and metrics by time; `client` is a client of the result store.

    Args:
        client: The store.
        max_entries: Entries kept per kind; the oldest go.
        ttl: Seconds an entry is kept.
    """

    def __init__(self, client: "Redis", *, max_entries: int = MAX_ENTRIES, ttl: int = TTL) -> None:
        self._client = client
        self._clock = ServerClock(client)
        self._max_entries = max_entries
        self._ttl = ttl

    def record(self, kind: Kind, entry: dict[str, Any], *, at: datetime | None = None) -> None:
        """Add an entry, and remove those that are too old or too many.

        Args:
            kind: Of what.
            entry: JSON.
            at: When it was, aware; None for now, by the store's clock.
        """
        key, score = key_of(kind), self._clock.now() if at is None else at.timestamp()
        member = orjson.dumps({"at": from_epoch(score), **entry})
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.zadd(key, {member: score})
            pipeline.zremrangebyscore(key, "-inf", f"({score - self._ttl}")
            pipeline.zremrangebyrank(key, 0, -self._max_entries - 1)
            pipeline.expire(key, self._ttl)
            pipeline.execute()

    def between(self, kind: Kind, since: datetime, until: datetime, limit: int) -> list[dict[str, Any]]:
        """Return entries from `since` to `until`, both included, newest first, at most `limit`."""
        found = self._client.zrevrangebyscore(key_of(kind), until.timestamp(), since.timestamp(), start=0, num=limit)
        return [parse(member) for member in cast("list[bytes]", found)]
