"""The throttle of a maintenance task: how long it may run, and how much of that time it works.

Work is done in batches of a few milliseconds. A pause in proportion to the batch's own duration follows each batch,
so a store that is busy, and therefore slow, gets longer pauses.
"""

import threading
import time
from collections.abc import Iterator
from typing import Protocol

from citadel_common.deadline import Deadline

LONGEST_PAUSE = 5.0
"""Seconds."""
RENEWALS = 3
"""Renewals of the lease within its time to live."""


class Renewable(Protocol):
    """A lease: `ttl` in seconds, and `renew`, which returns False once another run holds it."""

    ttl: float

    def renew(self) -> bool:
        """Extend the lease."""


class Throttle:
    """The bounds of one run.

    Args:
        deadline: When the run must end; the next run goes on from there.
        stopping: Set when the worker is told to stop.
        lease: The run's lease, renewed between batches.
        duty_cycle: Share of the time that is spent working, above 0 and at most 1.
    """

    def __init__(self, *, deadline: Deadline, stopping: threading.Event, lease: Renewable, duty_cycle: float) -> None:
        self._deadline = deadline
        self._stopping = stopping
        self._lease = lease
        self._rest = 1 / duty_cycle - 1
        self._renew_at = time.monotonic() + lease.ttl / RENEWALS
        self.stop_reason: str | None = None

    def batches(self) -> Iterator[None]:
        """Yield once per batch and pause after each, until the run must stop; `stop_reason` then says why."""
        while self._may_continue():
            started = time.monotonic()
            yield
            self._stopping.wait(min((time.monotonic() - started) * self._rest, LONGEST_PAUSE, self.remaining))

    @property
    def remaining(self) -> float:
        """Seconds left until the deadline, at least 0."""
        return max(0.0, self._deadline.remaining)

    def _may_continue(self) -> bool:
        self.stop_reason = self.stop_reason or self._reason_to_stop()
        return self.stop_reason is None

    def _reason_to_stop(self) -> str | None:
        if self._stopping.is_set():
            return "the worker is stopping"
        if self._deadline.remaining <= 0:
            return "the time limit is reached"
        if time.monotonic() < self._renew_at:
            return None
        self._renew_at = time.monotonic() + self._lease.ttl / RENEWALS
        return None if self._lease.renew() else "another run has taken over"
