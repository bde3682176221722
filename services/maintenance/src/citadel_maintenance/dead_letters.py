"""Removal of expired dead letters, oldest first."""

from typing import TYPE_CHECKING, Any

from citadel_common.delivery.dead_letters import DEAD_LETTERS, INDEX, DeadLetters
from citadel_common.delivery.server_clock import ServerClock
from citadel_maintenance.jobs.runner import Job

if TYPE_CHECKING:
    from redis import Redis

BATCH = 200
"""Dead letters removed per batch."""
KIND = "dead_letters"


class DeadLetterCleanup:
    """One run of `citadel.purge_dead_letters`.

    Args:
        job: The run.
        client: Client of the result store.
        ttl: Seconds a dead letter is kept.
    """

    def __init__(self, job: Job, client: "Redis", *, ttl: int) -> None:
        self._job = job
        self._client = client
        self._ttl = ttl
        self._clock = ServerClock(client)
        self._dead_letters = DeadLetters(client, ttl=ttl)

    def run(self) -> bool:
        """Remove the expired ones, or count them in a dry run; return whether that was all."""
        offset = 0
        for _ in self._job.throttle.batches():
            expired, size = self._next_expired(offset)
            removed = expired if self._job.dry_run else self._dead_letters.expire(BATCH)
            self._count(expired, removed, size)
            if expired < BATCH:
                return True
            offset += expired if self._job.dry_run else 0
        return False

    def _next_expired(self, offset: int) -> tuple[int, int]:
        """Return the number of the next expired dead letters, at most BATCH, and their bytes."""
        newest_expired = self._clock.now() - self._ttl
        ids: Any = self._client.zrange(INDEX, "-inf", newest_expired, byscore=True, offset=offset, num=BATCH)
        pipe = self._client.pipeline(transaction=False)
        for task_id in ids:
            pipe.hstrlen(DEAD_LETTERS, task_id)
        return len(ids), sum(pipe.execute())

    def _count(self, expired: int, removed: int, size: int) -> None:
        self._job.counters.examined += expired
        if expired:
            share = min(1.0, removed / expired)
            self._job.counters.add(KIND, found=expired, removed=removed, bytes_freed=round(size * share))
