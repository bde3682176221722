"""Cool-down of an endpoint: how long its server has asked to be left alone."""

import asyncio
import time
from collections.abc import Callable

from citadel_common.deadline import Deadline
from citadel_common.errors import LlmUnavailable

LONGEST = 900.0
"""Seconds that a cool-down lasts at most: then one call finds out."""


class Cooldown:
    """Lets calls pass, or makes them wait; belongs to one event loop.

    Args:
        where: The endpoint, for messages.
        clock: Seconds on the monotonic clock.
    """

    def __init__(self, where: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._where = where
        self._clock = clock
        self._ends_at = 0.0

    @property
    def remaining(self) -> float:
        """Seconds until it ends; 0 if there is none."""
        return max(0.0, self._ends_at - self._clock())

    def begin(self, seconds: float) -> None:
        """Let no call pass for so many seconds; a cool-down that lasts longer stays as it is."""
        self._ends_at = max(self._ends_at, self._clock() + min(seconds, LONGEST))

    async def over(self, deadline: Deadline) -> None:
        """Return once it has ended.

        Raises:
            LlmUnavailable: It ends after the deadline; at once.
        """
        while (left := self.remaining) > 0:
            if left > deadline.remaining:
                raise LlmUnavailable(
                    f"{self._where} asked to be left alone for {left:.3g} s more, which is past the deadline of the"
                    " step; it was not called",
                    retry_after=left,
                )
            await asyncio.sleep(left)
