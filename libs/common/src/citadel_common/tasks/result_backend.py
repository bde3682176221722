"""Celery's Redis result backend, with one round trip less per task."""

from typing import Any

from celery import states
from celery.app.backends import BACKEND_ALIASES
from celery.backends import redis


class Backend(redis.RedisBackend):  # type: ignore[misc]  # celery publishes no types
    """Stores a success without looking first.

    Celery looks each time whether a success is stored already, so that nothing late replaces it. Another success
    of the same task may.
    """

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if state != states.SUCCESS:
            return super()._store_result(task_id, result, state, traceback, request, **kwargs)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        self._set_with_state(self.get_key_for_task(task_id), self.encode(meta | {"task_id": task_id}), state)
        return result


class SentinelBackend(Backend, redis.SentinelBackend):  # type: ignore[misc]
    """The same for Redis behind Sentinel."""


def install() -> None:
    """Makes these the process's Redis backends."""
    BACKEND_ALIASES.update(
        {
            "redis": f"{__name__}:Backend",
            "rediss": f"{__name__}:Backend",
            "sentinel": f"{__name__}:SentinelBackend",
        }
    )
