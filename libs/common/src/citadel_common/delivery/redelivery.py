"""Gives back to the queue what dead workers held; runs in every worker, needs no leader."""

import time
from typing import TYPE_CHECKING, Any

import structlog
from kombu import Connection

from citadel_common.delivery.worker_registry import WorkerRegistry, held_message_keys
from citadel_common.telemetry import Metrics, names

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

PREFIX = "citadel:deliveries:"
KEPT = 24 * 3600
"""Seconds a count is kept after the last delivery."""


def count_delivery(client: "Redis", task_id: str, *, redelivered: bool) -> int:
    """How often the task was delivered, this time included."""
    if not redelivered:
        return 1
    pipe = client.pipeline()
    pipe.incr(PREFIX + task_id)
    pipe.expire(PREFIX + task_id, KEPT)
    redeliveries, _ = pipe.execute()
    return int(redeliveries) + 1


def forgive_delivery(client: "Redis", task_id: str) -> None:
    """Takes a delivery back: the task was handed back politely, its worker did not die."""
    pipe = client.pipeline()
    pipe.decr(PREFIX + task_id)
    pipe.expire(PREFIX + task_id, KEPT)
    pipe.execute()


log = structlog.get_logger(__name__)


class Reclaimer:
    """Finds dead workers and restores their unacknowledged messages.

    A worker that could not reach Redis must not judge others by heartbeats from before the outage: the
    silence rule counts only after this one has seen Redis without a break for `dead_after` seconds.
    """

    def __init__(self, app: "Celery", client: "Redis", metrics: Metrics, *, dead_after: float) -> None:
        self._app = app
        self._client = client
        self._presence = WorkerRegistry(client)
        self._metrics = metrics
        self._dead_after = dead_after
        self._connected_since: float | None = None

    def lost_connection(self) -> None:
        """Tells that Redis could not be reached."""
        self._connected_since = None

    def reclaim(self, *, own_id: str) -> int:
        """Restores the messages of every dead worker but oneself; how many."""
        now = time.monotonic()
        self._connected_since = self._connected_since or now
        seen_long_enough = now - self._connected_since >= self._dead_after
        silence = self._dead_after if seen_long_enough else float("inf")
        dead = [beat.id for beat in self._presence.all() if beat.id != own_id and beat.is_dead(dead_after=silence)]
        return sum(self._bury(worker_id) for worker_id in dead)

    def _bury(self, worker_id: str) -> int:
        restored = self._restore(worker_id)
        self._presence.forget(worker_id)
        if restored:
            self._metrics.count(names.RECLAIMED, restored)
            log.warning("dead_workers_tasks_returned", worker=worker_id, messages=restored)
        return restored

    def _restore(self, worker_id: str) -> int:
        """Each message moves in one transaction, so that two reapers at once restore it once."""
        keys = held_message_keys(worker_id)
        held: list[Any] = self._client.hkeys(keys["unacked_key"])
        tags = [tag.decode() for tag in held]
        if not tags:
            return 0
        options: dict[str, Any] = dict(self._app.conf.broker_transport_options) | keys | {"dead_holder": worker_id}
        with Connection(self._app.conf.broker_url, transport_options=options) as connection:
            channel = connection.default_channel
            for tag in tags:
                channel.qos.restore_by_tag(tag)
        self._client.delete(keys["unacked_index_key"], keys["unacked_mutex_key"])
        return len(tags)
