"""The clock of a Redis server, by which processes on several hosts agree on times.

Wall clocks of hosts differ, and they are set while processes run. So times that several processes compare (leases,
heartbeats, deadlines in messages) are times of the Redis server that holds them: scripts ask `redis.call('TIME')`, and
Python code asks a `ServerClock`. It needs no round trip for each time, because it keeps the difference between the
server's clock and this process's monotonic clock, which nobody sets.
"""

import threading
import time
from typing import TYPE_CHECKING, Any

import structlog

from citadel_common.deadline import Deadline
from citadel_common.stores.redis import ERRORS

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
REFRESH = 10.0
"""Seconds after which the server is asked again: its own clock may have been set, or another server has taken over."""
PAUSE = 5.0
"""Seconds until a server that did not answer is asked again."""
STEP = 0.5
"""Seconds that this host's clock may move against the monotonic one until the server is asked: after a suspended
machine has resumed, both have changed."""


class ServerClock:
    """A Redis server's clock; thread-safe.

    As long as the server has never answered, this host's clock stands in for it.

    Args:
        client: Client of the server. The clock calls it once in `REFRESH` seconds, so an event loop asks in a thread.
    """

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._asking = threading.Lock()
        self._offset: float | None = None
        self._ask_at = 0.0
        self._wall_offset = _wall_offset()

    def now(self) -> float:
        """Return the server's time in seconds since the epoch."""
        return time.monotonic() + self._current_offset()

    def deadline(self, at: float) -> Deadline:
        """Return the deadline at a time of the server, the form in which deadlines cross processes."""
        return Deadline(at - self._current_offset())

    def time_of(self, deadline: Deadline) -> float:
        """Return the server's time at a deadline."""
        return deadline.at + self._current_offset()

    def sync(self) -> None:
        """Ask the server.

        Raises:
            redis.RedisError: It does not answer; the clock goes on with what it knows.
        """
        asked_at = time.monotonic()
        answer: Any = self._client.time()
        seconds, microseconds = answer
        self.observe(seconds + microseconds / 1e6, asked_at=asked_at)

    def observe(self, server_time: float, *, asked_at: float) -> None:
        """Set the clock by a time in an answer of the server.

        Args:
            server_time: Seconds since the epoch.
            asked_at: When the question was sent, on `time.monotonic`.
        """
        answered_at = time.monotonic()
        least, most = server_time - answered_at, server_time - asked_at
        # a slow answer says little, and changes nothing that it does not contradict
        before = (least + most) / 2 if self._offset is None else self._offset
        self._offset = min(max(before, least), most)
        self._ask_at, self._wall_offset = answered_at + REFRESH, _wall_offset()

    def _current_offset(self) -> float:
        """Return the server's clock minus the monotonic one, in seconds."""
        # one thread asks; the others need not wait as long as there is an earlier answer
        if self._is_due() and self._asking.acquire(blocking=self._offset is None):
            try:
                if self._is_due():
                    self._try_to_sync()
            finally:
                self._asking.release()
        return _wall_offset() if self._offset is None else self._offset

    def _is_due(self) -> bool:
        return time.monotonic() >= self._ask_at or abs(_wall_offset() - self._wall_offset) > STEP

    def _try_to_sync(self) -> None:
        try:
            self.sync()
        except ERRORS as error:
            self._ask_at, self._wall_offset = time.monotonic() + PAUSE, _wall_offset()
            log.warning("server_clock_unknown", error=type(error).__name__)


def _wall_offset() -> float:
    """Return this host's clock minus the monotonic one, in seconds."""
    return time.time() - time.monotonic()
