"""Flushes of Redis, and what each of them destroys: work that was nowhere else."""

import time
from typing import Any

from citadel_common.delivery.accepted_tasks import RESULT_PREFIX
from citadel_common.delivery.dead_letters import DEAD_LETTERS
from tests.chaos.storm.cluster import Cluster
from tests.chaos.storm.ledger import PLAIN, Entry, Fate, Kind, Ledger
from tests.chaos.storm.watcher import Watcher

WITH_RESULTS = (*PLAIN, Kind.TASK)
OVERDUE_S = 45.0
"""Seconds after which an open task was lost before, and not by the flush."""
RACE_S = 10.0
"""Seconds for which a task is being sent at most."""


class Flushes:
    """Empties Redis, or lets it forget its last moments, and notes in the ledger what that may destroy.

    What a 202 accepted must outlive both.

    Args:
        ledger: The ledger.
        watcher: Reads the results that were there.
    """

    def __init__(self, ledger: Ledger, watcher: Watcher) -> None:
        self._ledger, self._watcher = ledger, watcher
        self._moments: list[float] = []
        self.dead_letters: set[str] = set()

    def flush(self, cluster: Cluster) -> None:
        """Read all results and empty Redis, in one transaction."""
        begun = self._ledger.unended(*WITH_RESULTS)
        with cluster.store() as store:
            pipe = store.pipeline(transaction=True)
            pipe.hkeys(DEAD_LETTERS)
            if begun:
                pipe.mget([f"{RESULT_PREFIX}{entry.handle}" for entry in begun])
            pipe.flushall()
            answers: list[Any] = pipe.execute()
        self.dead_letters |= {name.decode() for name in answers[0]}
        if begun:
            self._watcher.take_results(begun, answers[1])
        self.forgotten("Redis was emptied")

    def forgotten(self, reason: str) -> None:
        """Note that Redis has just lost what is not elsewhere, or may have."""
        now = time.time()
        self._moments.append(now)
        for entry in self._ledger.unended(*PLAIN):
            if entry.sent_at + entry.delay + OVERDUE_S < now:
                self._ledger.end(
                    entry, Fate.LOST, f"it had no end {OVERDUE_S:.0f} s after it was due, before: {reason}"
                )
            elif entry.sent_at < now:
                self._ledger.risk(entry)

    def may_have_destroyed(self, entry: Entry) -> bool:
        """Return whether a task without an end was in Redis alone when Redis forgot, or was just being sent."""
        return entry.risked or any(moment - RACE_S < entry.sent_at < moment for moment in self._moments)
