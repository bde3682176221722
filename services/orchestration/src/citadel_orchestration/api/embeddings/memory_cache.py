"""Vectors in use, in this process's memory, in the form in which they are sent.

Keys name all that a vector depends on, so an entry is never wrong; entries are short-lived all the same, so that
clearing the cache in Redis is felt, and its own account of what is in use stays true.
"""

import time
from collections import OrderedDict

from citadel_orchestration.api.embeddings.responses import Piece

_OVERHEAD = 300
"""Bytes of memory per entry beside key and value."""


class HotCache:
    """A bounded map: the least recently used go first.

    Args:
        max_bytes: Memory for all entries; 0 keeps none.
        ttl: Seconds an entry is kept.
    """

    def __init__(self, *, max_bytes: int, ttl: float) -> None:
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._entries: OrderedDict[str, tuple[Piece, float]] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Piece | None:
        """The value; None if there is none, or not any more."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[1] < time.monotonic():
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: str, value: Piece) -> None:
        """Keeps a value."""
        self._remove(key)
        self._entries[key] = (value, time.monotonic() + self._ttl)
        self._bytes += _size(key, value)
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(key, entry[0])


def _size(key: str, value: Piece) -> int:
    return len(key) + len(value.fragment) + _OVERHEAD
