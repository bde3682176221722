"""Leases: one instance of a task at a time, over the whole fleet.

A lease is renewed while its holder works and lapses when it dies. The same task delivered again, after its worker
was killed, takes over its own lease at once; should the first delivery still run, it loses the lease and ends.
"""

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

PREFIX = "citadel:maintenance:lease:"
_TOKEN = 33
"""Characters at the end of a lease's value that name the delivery: a space and a token."""
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, -ARGV[4] - 1) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1
"""
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class Lease:
    """One holder's lease, taken.

    Args:
        client: Client of the result store.
        name: What it is on.
        task_id: The task that holds it.
        ttl: Seconds it lasts without renewal.
    """

    def __init__(self, client: "Redis", name: str, task_id: str, *, ttl: float) -> None:
        self._key = PREFIX + name
        self._token = uuid.uuid4().hex
        self._task_id = task_id
        self._milliseconds = int(ttl * 1000)
        self._take: Any = client.register_script(_TAKE)
        self._renew: Any = client.register_script(_RENEW)
        self._release: Any = client.register_script(_RELEASE)

    @property
    def ttl(self) -> float:
        """Seconds it lasts without renewal."""
        return self._milliseconds / 1000

    def take(self) -> bool:
        """Whether it is now the caller's."""
        return bool(self._take(keys=[self._key], args=[self._task_id, self._token, self._milliseconds, _TOKEN]))

    def renew(self) -> bool:
        """Whether it is still the caller's; one that lapsed, and that nobody took, is."""
        return bool(self._renew(keys=[self._key], args=[self._holder, self._milliseconds]))

    def release(self) -> None:
        """Gives it up, if it is still the caller's."""
        self._release(keys=[self._key], args=[self._holder])

    @property
    def _holder(self) -> str:
        return f"{self._task_id} {self._token}"
