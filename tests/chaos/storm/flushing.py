"""Flushes of Redis, and what each of them destroys: work that was nowhere else."""

import time
from typing import Any

from citadel_common.delivery.accepted_tasks import RESULT_PREFIX
from citadel_common.delivery.dead_letters import DEAD_LETTERS
from tests.chaos.storm.cluster import Cluster
from tests.chaos.storm.ledger import PLAIN, Fate, Kind, Ledger
from tests.chaos.storm.watcher import Watcher

WITH_RESULTS = (*PLAIN, Kind.TASK)


class Flushes:
    """Empties Redis, and notes in the ledger what that destroys.

    Args:
        ledger: The ledger.
        watcher: Reads the results that were there.
    """

    def __init__(self, ledger: Ledger, watcher: Watcher) -> None:
        self._ledger, self._watcher = ledger, watcher
        self.dead_letters: set[str] = set()
        self.last_at = 0.0

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
        self.last_at = time.time()
        self.dead_letters |= {name.decode() for name in answers[0]}
        if begun:
            self._watcher.take_results(begun, answers[1])
        self._destroy()

    def _destroy(self) -> None:
        """Note the plain tasks that had been sent; what a 202 accepted must outlive any flush."""
        for entry in self._ledger.unended(*PLAIN):
            if entry.sent_at < self.last_at:
                self._ledger.end(entry, Fate.DESTROYED, "Redis was emptied")
