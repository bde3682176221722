"""Counts how often the broker handed a task out again after a worker died with it.

Celery does not: a killed worker's message comes back with the same retry count each time. First deliveries
cost nothing; only redelivered messages are counted.
"""

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
