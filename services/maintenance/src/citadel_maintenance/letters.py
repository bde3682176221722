"""Dead letters past their time, the oldest first."""

import time
from typing import TYPE_CHECKING, Any

from citadel_common.delivery.dead_letters import INDEX, LETTERS, DeadLetters
from citadel_maintenance.upkeep import Job

if TYPE_CHECKING:
    from redis import Redis

LIMIT = 200
"""Letters removed per step."""
KIND = "dead_letters"


class LetterExpiry:
    """One run of the clean-up.

    Args:
        job: Pace and counts.
        client: Client of the result store.
        ttl: Seconds a letter is kept.
    """

    def __init__(self, job: Job, client: "Redis", *, ttl: int) -> None:
        self._job = job
        self._client = client
        self._ttl = ttl
        self._letters = DeadLetters(client, ttl=ttl)

    def run(self) -> bool:
        """Removes, or counts, what is due; whether that was all."""
        passed = 0
        while self._job.pace.goes_on():
            with self._job.pace.batch():
                due, size = self._due(passed)
                removed = due if self._job.dry_run else self._letters.expire(LIMIT)
                self._tell(due, removed, size)
            if due < LIMIT:
                return True
            passed += due if self._job.dry_run else 0
        return False

    def _due(self, offset: int) -> tuple[int, int]:
        """How many of the next letters are due, at most LIMIT, and their bytes."""
        bottom = time.time() - self._ttl
        ids: Any = self._client.zrange(INDEX, "-inf", bottom, byscore=True, offset=offset, num=LIMIT)
        pipe = self._client.pipeline(transaction=False)
        for letter_id in ids:
            pipe.hstrlen(LETTERS, letter_id)
        return len(ids), sum(pipe.execute())

    def _tell(self, due: int, removed: int, size: int) -> None:
        self._job.tallies.examined += due
        if not due:
            return
        tally = self._job.tallies.of(KIND)
        tally.examined += due
        tally.removed += removed
        tally.bytes_freed += round(size * min(1.0, removed / due))
