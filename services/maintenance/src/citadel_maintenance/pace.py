"""Pace: how long a clean-up may go on, and how gently.

Work is done in batches of some milliseconds. After each comes a pause in proportion to the time that the batch took,
so that a store that is busy, and therefore slow, is left alone for longer.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from citadel_common.deadline import Deadline
from citadel_maintenance.lease import Lease

LONGEST_PAUSE = 5.0
"""Seconds."""
RENEWALS = 3
"""Renewals of the lease within the time that it lasts."""


class Pace:
    """Asked before each batch.

    Args:
        deadline: When the work must pause until the next run.
        stopping: Set when the worker is told to go.
        lease: Kept alive meanwhile.
        duty: Share of the time that is spent working.
    """

    def __init__(self, *, deadline: Deadline, stopping: threading.Event, lease: Lease, duty: float) -> None:
        self._deadline = deadline
        self._stopping = stopping
        self._lease = lease
        self._rest = 1 / duty - 1
        self._renew_at = time.monotonic() + lease.ttl / RENEWALS
        self.cut_by: str | None = None

    def goes_on(self) -> bool:
        """Whether there may be another batch; if not, `cut_by` says why."""
        self.cut_by = self.cut_by or self._cut()
        return self.cut_by is None

    @contextmanager
    def batch(self) -> Iterator[None]:
        """One batch, and the pause after it."""
        started = time.monotonic()
        yield
        pause = min((time.monotonic() - started) * self._rest, LONGEST_PAUSE, max(0.0, self._deadline.remaining))
        self._stopping.wait(pause)

    @property
    def remaining(self) -> float:
        """Seconds left, none at least."""
        return max(0.0, self._deadline.remaining)

    def _cut(self) -> str | None:
        if self._stopping.is_set():
            return "the worker is stopping"
        if self._deadline.remaining <= 0:
            return "the time limit is reached"
        if time.monotonic() < self._renew_at:
            return None
        self._renew_at = time.monotonic() + self._lease.ttl / RENEWALS
        return None if self._lease.renew() else "another run has taken over"
