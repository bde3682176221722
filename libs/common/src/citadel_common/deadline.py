"""Deadlines: one point in time that every outside call of a piece of work respects."""

import time
from dataclasses import dataclass
from typing import Self

from citadel_common.errors import DeadlineExceeded


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

    @classmethod
    def from_epoch(cls, seconds: float) -> Self:
        """Return the deadline of wall-clock seconds, the form in which deadlines cross processes."""
        return cls(time.monotonic() + seconds - time.time())

    def to_epoch(self) -> float:
        """Return wall-clock seconds since the epoch."""
        return self.at - time.monotonic() + time.time()

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
