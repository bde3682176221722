"""Laps: how far a clean-up has come through a store, so that the next run goes on there.

This saves time and nothing else: without it the next run begins at the start and ends at the same state.
"""

import time
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from redis import Redis

PREFIX = "citadel:maintenance:lap:"
KEPT = 24 * 3600
"""Seconds after which a lap is begun anew."""
SAVED_EVERY = 2.0
"""Seconds between two savings while a clean-up works."""


class Lap:
    """One clean-up's place, as a JSON object of its own making.

    Args:
        client: Client of the result store.
        name: The clean-up's name.
    """

    def __init__(self, client: "Redis", name: str) -> None:
        self._client = client
        self._key = PREFIX + name
        self._save_at = 0.0

    def load(self) -> dict[str, Any]:
        """What was saved; empty for a new lap."""
        stored: Any = self._client.get(self._key)
        return {} if stored is None else dict(orjson.loads(stored))

    def save(self, state: dict[str, Any], *, now: bool = False) -> None:
        """Saves the place, unless it was saved a moment ago."""
        if not now and time.monotonic() < self._save_at:
            return
        self._save_at = time.monotonic() + SAVED_EVERY
        self._client.set(self._key, orjson.dumps(state), ex=KEPT)

    def end(self) -> None:
        """The lap is done: the next one begins at the start."""
        self._client.delete(self._key)
