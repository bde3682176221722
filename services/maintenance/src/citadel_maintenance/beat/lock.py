"""The leader's lock in the broker's Redis."""

import time
from typing import TYPE_CHECKING

import structlog

from citadel_common.stores.token_lock import TokenLock
from citadel_maintenance.beat.schedule import LEADER

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
RENEWALS = 3
"""Renewals within the lock's time to live."""


class LeaderLock:
    """One candidate's view of the lock.

    The view may be out of date, for example after a pause of the process. So whatever the leader writes checks the
    token in the same step (`ledger`).

    Args:
        client: Client of the broker's Redis.
        token: Identifies this candidate; never used by another one.
        ttl: Seconds the lock lasts without renewal.
    """

    def __init__(self, client: "Redis", token: str, *, ttl: float) -> None:
        self._lock = TokenLock(client, LEADER, token, ttl=ttl)
        self._renewed_at: float | None = None

    @property
    def token(self) -> str:
        """The candidate's token."""
        return self._lock.token

    @property
    def is_held(self) -> bool:
        """True if this candidate believes that it leads."""
        return self._renewed_at is not None

    def take(self) -> bool:
        """Take the lock if no other candidate holds it; repeating it after a lost answer does no harm."""
        asked_at = time.monotonic()  # before the call: the lock expires ttl after Redis set it, which is later
        if not self._lock.take():
            return False
        self._renewed_at = asked_at
        log.info("leader_gained", leader=self.token)
        return True

    def keep(self) -> bool:
        """Renew the lock when a renewal is due; return False if the lead is lost."""
        asked_at = time.monotonic()
        if self._renewed_at is not None and asked_at - self._renewed_at < self._lock.ttl / RENEWALS:
            return True
        if not self._lock.renew():
            self.lost("taken or expired")
            return False
        self._renewed_at = asked_at
        return True

    def lost(self, reason: str) -> None:
        """Record that this candidate does not lead any more."""
        self._renewed_at = None
        log.warning("leader_lost", leader=self.token, reason=reason)

    def store_failed(self) -> None:
        """Give up the lead if Redis has not answered for so long that the lock must have expired."""
        if self._renewed_at is not None and time.monotonic() - self._renewed_at > self._lock.ttl:
            self.lost("Redis does not answer")

    def release(self) -> None:
        """Release the lock, so that another candidate can take it at once."""
        if self.is_held:
            self._lock.release()
            self._renewed_at = None
            log.info("leader_lost", leader=self.token, reason="stopped")
