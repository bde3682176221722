"""Redelivery: messages of dead workers go back to their queue, and redeliveries are counted.

Every worker reclaims; there is no leader. Celery does not count redeliveries: a killed worker's message comes back
with the same retry count each time. First deliveries cost nothing; only redelivered messages are counted.
"""

from typing import TYPE_CHECKING, Any

import structlog

from citadel_common.delivery.worker_registry import SilenceWatch, WorkerRegistry, held_message_keys
from citadel_common.telemetry import Metrics, names

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

from typing import TYPE_CHECKING

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


class Reclaimer:
    """Finds dead workers and gives their unacknowledged messages back to the queue.

    A worker is silent as long as this one sees its heartbeat unchanged, whatever their clocks say. A worker that could
    not reach Redis must not judge others by heartbeats from before the outage: each silence begins anew after it.
    """

    def __init__(self, app: "Celery", client: "Redis", metrics: Metrics, *, dead_after: float) -> None:
        self._app = app
        self._client = client
        self._registry = WorkerRegistry(client)
        self._metrics = metrics
        self._dead_after = dead_after
        self._watch = SilenceWatch(most=dead_after / COUNTED_SHARE)

    def lost_connection(self) -> None:
        """Note that Redis could not be reached."""
        self._watch.reset()

    def reclaim(self, *, own_id: str) -> int:
        """Give back the messages of every dead worker but `own_id`; return how many."""
        others = [beat for beat in self._registry.all() if beat.id != own_id]
        silences, limit = self._watch.look(others), self._dead_after
        dead = [beat.id for beat in others if beat.is_dead(silence=silences[beat.id], dead_after=limit)]
        return sum(self._bury(worker_id) for worker_id in dead)

    def _bury(self, worker_id: str) -> int:
        restored = self._restore(worker_id)
        self._registry.forget(worker_id)
        if restored:
            self._metrics.count(names.RECLAIMED, restored)
            log.warning("dead_workers_tasks_returned", worker=worker_id, messages=restored)
        return restored

    def _restore(self, worker_id: str) -> int:
        """Give back one worker's messages; return how many."""
        keys = held_message_keys(worker_id)
        held: list[Any] = self._client.hkeys(keys["unacked_key"])
        tags = [tag.decode() for tag in held]
        if not tags:
            return 0
        with self._app.connection_for_write(transport_options=keys | {"dead_holder": worker_id}) as connection:
            channel = connection.default_channel
            # kombu moves each message in one transaction, so two peers that reclaim at once restore it once
            for tag in tags:
                channel.qos.restore_by_tag(tag)
        self._client.delete(keys["unacked_index_key"], keys["unacked_mutex_key"])
        return len(tags)
