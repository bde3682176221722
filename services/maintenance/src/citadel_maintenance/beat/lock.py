"""The leader's lock: a key in the broker's Redis that holds the leader's token and expires unless renewed."""

import time
from typing import TYPE_CHECKING, Any

import structlog

from citadel_common.schedule import LEADER

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
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


class LeaderLock:
    """One candidate's view of the lock.

    What it believes may be out of date, after a pause of the process for one: whoever acts on the lead checks the
    token in the same step (`ledger`).

    Args:
        client: Client of the broker's Redis.
        token: Names this candidate, unique over all time.
        ttl: Seconds the lock holds without renewal; it is renewed three times as often.
    """

    def __init__(self, client: "Redis", token: str, *, ttl: float) -> None:
        self.token = token
        self._ttl = ttl
        self._take: Any = client.register_script(_TAKE)
        self._renew: Any = client.register_script(_RENEW)
        self._release: Any = client.register_script(_RELEASE)
        self._renewed_at: float | None = None

    @property
    def is_held(self) -> bool:
        """Whether this candidate believes to lead."""
        return self._renewed_at is not None

    def take(self) -> bool:
        """Takes the lock if nobody else holds it; asking again after a lost answer does no harm."""
        asked_at = time.monotonic()
        if not self._take(keys=[LEADER], args=[self.token, self._milliseconds]):
            return False
        self._renewed_at = asked_at
        log.info("leader_gained", leader=self.token)
        return True

    def keep(self) -> bool:
        """Renews the lock when that is due; False when the lead is lost."""
        asked_at = time.monotonic()
        if self._renewed_at is not None and asked_at - self._renewed_at < self._ttl / 3:
            return True
        if not self._renew(keys=[LEADER], args=[self.token, self._milliseconds]):
            self.lost("taken or expired")
            return False
        self._renewed_at = asked_at
        return True

    def lost(self, reason: str) -> None:
        """Notes that this candidate does not lead any more."""
        self._renewed_at = None
        log.warning("leader_lost", leader=self.token, reason=reason)

    def store_failed(self) -> None:
        """Gives up the lead once it must have expired."""
        if self._renewed_at is not None and time.monotonic() - self._renewed_at > self._ttl:
            self.lost("Redis does not answer")

    def release(self) -> None:
        """Gives the lock back, so that another candidate can take it at once."""
        if self.is_held:
            self._release(keys=[LEADER], args=[self.token])
            self._renewed_at = None
            log.info("leader_lost", leader=self.token, reason="stopped")

    @property
    def _milliseconds(self) -> int:
        return round(self._ttl * 1000)
