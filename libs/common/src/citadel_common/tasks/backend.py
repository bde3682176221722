"""The result backend of workers: it stores results and awaits none.

Celery subscribes a producer to the result of each task it sends. A worker that publishes a retry or a lost task
again never reads that result, and its subscriptions would pile up.
"""

from typing import Any

from celery.backends.redis import RedisBackend, SentinelBackend


class StoringBackend(RedisBackend):  # type: ignore[misc]  # celery publishes no types
    """Results in Redis."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nobody here waits for the result."""


class StoringSentinelBackend(SentinelBackend):  # type: ignore[misc]  # celery publishes no types
    """Results in Redis behind Sentinel."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nobody here waits for the result."""


OVERRIDES = {
    "redis": f"{__name__}:StoringBackend",
    "rediss": f"{__name__}:StoringBackend",
    "sentinel": f"{__name__}:StoringSentinelBackend",
}
"""For a Celery loader's `override_backends`."""
