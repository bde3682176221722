"""Revoked tasks: known to every worker, those that start later or were cut off included.

A revoke of a Celery client is one message of Redis' pub/sub, which reaches the workers that listen at that moment. They
store it in the broker, as a sorted set by time of expiry, from which the others learn it. Each worker holds the set in
memory, so that asking about a task costs no round trip.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from citadel_common.settings.common import RevokeSettings

if TYPE_CHECKING:
    from redis import Redis

REVOKED = "citadel:revoked"
"""Sorted set of task ids by expiry, in seconds of the Redis server's clock."""
STAMPS = "citadel:revoked:stamps"
"""The same for stamps: a JSON array of header and value."""
OVERLAP = 5.0
"""Seconds before the newest entry from which further ones are read: a writer's script may be replicated late."""
_ADD = """
local now = redis.call('TIME')
local expiry = now[1] + now[2] / 1000000 + ARGV[1]
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], expiry, ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
"""Adds members for so many seconds; of more than ARGV[2], those that expire first go."""


class Headers(Protocol):
    """Headers of a message, or a request that has them."""

    def get(self, name: str, /) -> Any:
        """Return a header, or None."""


class RevokedSet:
    """One set of revoked members, here and in the broker; thread-safe.

    Args:
        client: Of the broker's Redis.
        key: Of the sorted set.
        settings: How long and how many members are kept.
        clock: The monotonic clock.
    """

    def __init__(
        self, client: "Redis", key: str, settings: RevokeSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._key = key
        self._settings = settings
        self._clock = clock
        self._add: Any = client.register_script(_ADD)
        self._expiries: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        self._newest = 0.0

    def __contains__(self, member: str) -> bool:
        """Return whether the member is known here as revoked."""
        expiry = self._expiries.get(member)
        return expiry is not None and expiry > self._clock()

    def __bool__(self) -> bool:
        """Return whether any member is known here."""
        return bool(self._expiries)

    def newest(self, most: int) -> list[str]:
        """Return the members known here, at most so many, those added last first."""
        with self._lock:
            now = self._clock()
            return [member for member, expiry in reversed(self._expiries.items()) if expiry > now][:most]

    def note(self, members: Iterable[str]) -> list[str]:
        """Note members here alone; return those that were not known."""
        return self._note(dict.fromkeys(members, float(self._settings.ttl)))

    def store(self, members: Sequence[str]) -> None:
        """Store members in the broker.

        Raises:
            redis.RedisError: The broker does not take them.
        """
        if members:
            self._add(keys=[self._key], args=[self._settings.ttl, self._settings.most, *members])

    def read(self, *, all_of_them: bool = False) -> list[str]:
        """Note what the broker has, by default what is new there; return the members that were not known here.

        Raises:
            redis.RedisError: The broker does not answer, or has something else under the key.
        """
        since = 0.0 if all_of_them else max(0.0, self._newest - OVERLAP)
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        pipe.zrange(self._key, repr(since), "+inf", byscore=True, withscores=True)
        (seconds, microseconds), stored = pipe.execute()
        now = seconds + microseconds / 1e6
        self._newest = max((expiry for _, expiry in stored), default=since)
        return self._note({member.decode("utf-8", "replace"): expiry - now for member, expiry in stored})

    def _note(self, members: Mapping[str, float]) -> list[str]:
        """Note members for the given seconds, and forget those that have expired or are too many."""
        with self._lock:
            now = self._clock()
            fresh = [member for member in members if self._expiries.get(member, 0.0) <= now]
            for member, seconds in members.items():
                self._expiries[member] = max(now + seconds, self._expiries.get(member, 0.0))
                self._expiries.move_to_end(member)
            while self._expiries and (
                len(self._expiries) > self._settings.most or next(iter(self._expiries.values())) <= now
            ):
                self._expiries.popitem(last=False)
        return fresh


class RevokedTasks:
    """The revoked ids and stamps that one worker knows.

    Attributes:
        ids: Ids of tasks.
        stamps: Stamps, as `stamp_of` writes them.
    """

    def __init__(self, client: "Redis", settings: RevokeSettings) -> None:
        self.ids = RevokedSet(client, REVOKED, settings)
        self.stamps = RevokedSet(client, STAMPS, settings)

    def __contains__(self, task_id: str) -> bool:
        """Return whether a task is revoked by its id."""
        return task_id in self.ids

    def has(self, task_id: str, headers: Headers) -> bool:
        """Return whether a task is revoked by its id or by a stamp in its message's headers."""
        return task_id in self.ids or bool(self.stamps and any(stamp in self.stamps for stamp in stamps_in(headers)))


def stamps_in(headers: Headers) -> list[str]:
    """Return the stamps of a message; a foreign one may hold anything."""
    names, values = headers.get("stamped_headers"), headers.get("stamps")
    if not isinstance(names, list) or not isinstance(values, dict):
        return []
    return [stamp_of(name, value) for name in names if isinstance(name, str) for value in as_list(values.get(name))]


def stamp_of(header: str, value: object) -> str:
    """Return the form in which a stamp is kept; equal values have equal forms."""
    return orjson.dumps([header, value], option=orjson.OPT_SORT_KEYS, default=repr).decode()


def as_list(value: object) -> list[Any]:
    """Return a list as it is, nothing as an empty one, anything else as its only element."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]
