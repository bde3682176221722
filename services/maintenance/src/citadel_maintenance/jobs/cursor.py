"""Saved cursors: where a run stopped in a store, so that the next run goes on there.

A cursor only saves time. Without one the next run begins at the start and reaches the same state.
"""

import time
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from redis import Redis

PREFIX = "citadel:maintenance:lap:"
TTL = 24 * 3600
"""Seconds after which a saved cursor expires."""
SAVE_INTERVAL = 2.0
"""Seconds between two saves during a run."""


class SavedCursor:
    """The position of one maintenance task, as a JSON object in the task's own form.

    Args:
        client: Client of the result store.
        name: Name of the task.
    """

    def __init__(self, client: "Redis", name: str) -> None:
        self._client = client
        self._key = PREFIX + name
        self._save_at = 0.0

    def load(self) -> dict[str, Any]:
        """Return the saved position; empty if there is none."""
        stored: Any = self._client.get(self._key)
        return {} if stored is None else dict(orjson.loads(stored))

    def save(self, position: dict[str, Any], *, now: bool = False) -> None:
        """Save the position, at most once per `SAVE_INTERVAL` unless `now` is set."""
        if not now and time.monotonic() < self._save_at:
            return
        self._save_at = time.monotonic() + SAVE_INTERVAL
        self._client.set(self._key, orjson.dumps(position), ex=TTL)

    def clear(self) -> None:
        """Delete the position: the next run begins at the start."""
        self._client.delete(self._key)
