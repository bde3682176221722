"""A lock in Redis: a key that holds its holder's token and expires unless it is renewed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

# Each script compares and changes in one step: between a GET and a SET of its own, a paused process could overwrite
# the lock of whoever has taken it meanwhile.
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class TokenLock:
    """One process's handle on a lock.

    Args:
        client: Redis client.
        key: Key of the lock.
        token: Value that identifies the holder; never used by another one.
        ttl: Seconds the lock lasts without renewal.
    """

    def __init__(self, client: "Redis", key: str, token: str, *, ttl: float) -> None:
        self.key = key
        self.token = token
        self.ttl = ttl
        self._take: Any = client.register_script(_TAKE)
        self._renew: Any = client.register_script(_RENEW)
        self._release: Any = client.register_script(_RELEASE)

    @property
    def milliseconds(self) -> int:
        """The time to live in Redis' unit."""
        return round(self.ttl * 1000)

    def take(self) -> bool:
        """Take the lock if it is free, or extend it if this token holds it; return whether this token holds it now."""
        return bool(self._take(keys=[self.key], args=[self.token, self.milliseconds]))

    def renew(self) -> bool:
        """Extend the lock; return False, and take nothing, if it has expired or another token holds it."""
        return bool(self._renew(keys=[self.key], args=[self.token, self.milliseconds]))

    def release(self) -> None:
        """Delete the lock if this token holds it."""
        self._release(keys=[self.key], args=[self.token])
