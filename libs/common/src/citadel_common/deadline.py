"""Deadlines: one point in time that every outside call of a piece of work respects, and cancelling calls at it."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from citadel_common.errors import DeadlineExceeded

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock.

    Attributes:
        at: Seconds on `time.monotonic`.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    def earliest(self, seconds: float) -> "Deadline":
        """Return the earlier of this deadline and `seconds` from now."""
        return Deadline(min(self.at, time.monotonic() + seconds))

    @property
    def remaining(self) -> float:
        """Return the seconds left; negative once the deadline has passed."""
        return self.at - time.monotonic()

    def timeout(self, limit: float) -> float:
        """Return the seconds that an outside call may take: at most `limit`.

        Raises:
            DeadlineExceeded: Nothing is left.
        """
        left = self.remaining
        if left <= 0:
            raise DeadlineExceeded
        return min(limit, left)


async def cancelled_once(call: Coroutine[Any, Any, T]) -> T:
    """Return a call's result; cancel the call at most once, and do not wait for it then.

    httpx closes a connection in answer to a cancel, some steps of the event loop later. A second cancel in between
    (two time limits that end together) stops it: the server goes on answering, and the pool has a connection less.
    """
    task = asyncio.create_task(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        raise
