"""Redelivery: messages of dead workers go back to their queue, and redeliveries are counted.

Every worker reclaims; there is no leader. Celery does not count redeliveries: a killed worker's message comes back
with the same retry count each time. First deliveries cost nothing; only redelivered messages are counted.
"""

import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from citadel_common.delivery.taking import LONGEST_BLOCK
from citadel_common.delivery.worker_messages import WorkerMessages
from citadel_common.delivery.worker_registry import Heartbeat, SilenceWatch, WorkerRegistry
from citadel_common.telemetry import Metrics, names

if TYPE_CHECKING:
    from redis import Redis

PREFIX = "citadel:deliveries:"
KEPT = 24 * 3600
"""Seconds that a count is kept after the last delivery."""
COUNTED_SHARE = 3
"""Part of `dead_after` that counts as silence between two looks at most: the looker itself may have been paused."""


def count_delivery(client: "Redis", task_id: str, *, redelivered: bool) -> int:
    """Return how often the task was delivered, this time included."""
    if not redelivered:
        return 1
    pipe = client.pipeline()
    pipe.incr(PREFIX + task_id)
    pipe.expire(PREFIX + task_id, KEPT)
    redeliveries, _ = pipe.execute()
    return int(redeliveries) + 1


def forgive_delivery(client: "Redis", task_id: str) -> None:
    """Take a delivery off the count: the task was handed back, its worker did not die."""
    pipe = client.pipeline()
    pipe.decr(PREFIX + task_id)
    pipe.expire(PREFIX + task_id, KEPT)
    pipe.execute()


log = structlog.get_logger(__name__)
FORGOTTEN_AFTER = LONGEST_BLOCK + 1.0
"""Seconds after which a dead worker is forgotten: until then a blocked move of its may still fill its inbox."""


class Reclaimer:
    """Finds dead workers and gives their unacknowledged messages back to the queue.

    A worker is silent as long as this one sees its heartbeat unchanged, whatever their clocks say. A worker that could
    not reach Redis must not judge others by heartbeats from before the outage: each silence begins anew after it.

    Attributes:
        living: Number of living workers by queue, as of the last look.
    """

    def __init__(self, client: "Redis", metrics: Metrics, *, dead_after: float) -> None:
        self._client = client
        self._registry = WorkerRegistry(client)
        self._metrics = metrics
        self._dead_after = dead_after
        self._watch = SilenceWatch(most=dead_after / COUNTED_SHARE)
        self._dead_since: dict[str, float] = {}
        self.living: Counter[str] = Counter()

    def lost_connection(self) -> None:
        """Note that Redis could not be reached."""
        self._watch.reset()

    def reclaim(self, *, own_id: str) -> int:
        """Give back the messages of every dead worker but `own_id`; return how many."""
        stored = list(self._registry.stored())
        others = [(beat, raw) for beat, raw in stored if beat.id != own_id]
        silences, limit = self._watch.look(beat for beat, _ in others), self._dead_after
        dead = [(beat, raw) for beat, raw in others if beat.is_dead(silence=silences[beat.id], dead_after=limit)]
        now = time.monotonic()
        self._dead_since = {beat.id: self._dead_since.get(beat.id, now) for beat, _ in dead}
        self.living = Counter(beat.queue for beat, _ in stored if beat.id not in self._dead_since)
        return sum(self._bury(beat, raw) for beat, raw in dead)

    def _bury(self, beat: Heartbeat, raw: bytes) -> int:
        """Give back what a dead worker held; forget it once nothing more can come.

        Each step is void if the worker has sent a heartbeat since: then it lives.
        """
        messages = WorkerMessages(self._client, beat.id, beat.queue)
        returned = messages.give_back(messages.tags(), redelivered=True, judged_by=raw, died_with=beat.id)
        returned += messages.empty_inboxes(judged_by=raw)
        if time.monotonic() - self._dead_since[beat.id] >= FORGOTTEN_AFTER:
            messages.forget(judged_by=raw)
        if returned:
            self._metrics.count(names.RECLAIMED, returned)
            log.warning("dead_workers_tasks_returned", worker=beat.id, messages=returned)
        return returned
