"""Slots: how many requests run at once, and for how long each, with an average rate that is exact."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from tests.doubles.base.caller import Caller
from tests.doubles.base.refusals import CallerGoneError


class Slot:
    """One place to run in.

    Timers fire late (and, with millisecond timers, early). So a run ends, on paper, when it should have:
    the next one in the queue begins at `free_at`, and one that arrives later gets the lateness back.

    Args:
        clock: Return monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._free_at = 0.0
        self._late = 0.0

    async def occupy(self, caller: Caller, arrival: float, seconds: float) -> None:
        """Run for so long, from `arrival` (monotonic) or when the slot came free."""
        end = max(self._free_at, arrival - self._late) + seconds
        try:
            await caller.sleep(end - self._clock())
        except CallerGoneError:
            self._free_at, self._late = self._clock(), 0.0
            raise
        self._free_at = end
        self.settle()

    def settle(self) -> None:
        """Count everything since the run should have ended as lateness: writing the answer too."""
        self._late = max(0.0, self._clock() - self._free_at)


class Slots:
    """A fixed number of slots; who finds none waits its turn, without any bound."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = [Slot() for _ in range(count)]
        self._waiting: deque[asyncio.Future[Slot]] = deque()

    @property
    def running(self) -> int:
        """The number of taken slots."""
        return self._count - len(self._free)

    async def acquire(self, caller: Caller) -> Slot:
        """Return a slot that is the caller's until released."""
        if self._free:
            return self._free.pop()
        turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await caller.until(turn)
        except BaseException:
            self._give_up(turn)
            raise
        return turn.result()

    def release(self, slot: Slot) -> None:
        """Pass a slot to the next in line."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(slot)
                return
        self._free.append(slot)

    def _give_up(self, turn: asyncio.Future[Slot]) -> None:
        if turn.done():
            self.release(turn.result())
        else:
            turn.cancel()
