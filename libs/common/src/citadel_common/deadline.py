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
        """The deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def from_epoch(cls, seconds: float) -> Self:
        """From wall-clock seconds, the form in which deadlines cross processes."""
        return cls(time.monotonic() + seconds - time.time())

    def to_epoch(self) -> float:
        """As wall-clock seconds."""
        return self.at - time.monotonic() + time.time()

    def earliest(self, seconds: float) -> "Deadline":
        """The earlier one of this and `seconds` from now."""
        return Deadline(min(self.at, time.monotonic() + seconds))

    @property
    def remaining(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - time.monotonic()

    def timeout(self, limit: float) -> float:
        """Seconds an outside call may take: at most `limit`.

        Raises:
            DeadlineExceeded: Nothing is left.
        """
        left = self.remaining
        if left <= 0:
            raise DeadlineExceeded
        return min(limit, left)
