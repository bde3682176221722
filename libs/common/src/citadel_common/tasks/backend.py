"""The result backend of workers: it stores results and awaits none.

Celery subscribes a producer to the result of each task it sends. A worker that publishes a retry or a lost task
again never reads that result, and its subscriptions would pile up.

Celery also looks before each success whether one is stored already, so that nothing late replaces it. Another
success of the same task may, and a worker saves the round trip.
"""

from typing import Any

from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend


class StoringBackend(RedisBackend):  # type: ignore[misc]  # celery publishes no types
    """Results in Redis."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nobody here waits for the result."""

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if state != states.SUCCESS:
            return super()._store_result(task_id, result, state, traceback, request, **kwargs)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        self._set_with_state(self.get_key_for_task(task_id), self.encode(meta | {"task_id": task_id}), state)
        return result


class StoringSentinelBackend(StoringBackend, SentinelBackend):  # type: ignore[misc]  # celery publishes no types
    """Results in Redis behind Sentinel."""


OVERRIDES = {
    "redis": f"{__name__}:StoringBackend",
    "rediss": f"{__name__}:StoringBackend",
    "sentinel": f"{__name__}:StoringSentinelBackend",
}
"""For a Celery loader's `override_backends`."""
