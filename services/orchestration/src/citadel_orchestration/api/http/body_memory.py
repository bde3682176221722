"""Memory of bodies in flight: a budget per process, so that many large bodies, or a few bombs, cannot take it down."""

import asyncio
import re
from collections import deque

from citadel_common.errors import Overloaded
from citadel_common.telemetry import Metrics, names
from citadel_orchestration.api.http.errors import BodyTooLarge

SCOPE_KEY = "citadel.body_memory"
"""Key of the ASGI scope under which a request's `Share` is."""
PATIENCE = 5.0
"""Seconds that a body waits for others to end before it is refused."""
SHARE = 3 / 8
"""Part of a process's memory that bodies may take; the program, vectors in use and views of runs take the others."""
SMALLEST = 16 * 2**20
"""Bytes for bodies even in the smallest container."""
LARGE = 32 * 2**20
"""Estimated bytes from which the contents of texts are left out of the estimate: commas in prose are no values."""
# Measured with pydantic's validation from JSON, which holds a tree of its own beside the value: 66 bytes for a number,
# 110 for a short text, 250 for an empty list in a list, 330 for a member of an object.
_WEIGHTS = ((b",", 66), (b'"', 22), (b"[", 250), (b"{", 250), (b":", 256))
_PER_BYTE = 2
# First bytes of characters beyond U+FFFF in UTF-8, and their escapes: one makes each character of its text take four.
_WIDEST = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4", b"\\ud", b"\\uD")
_TEXTS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def capacity_of(setting: int, processes: int, limit: int | None) -> int:
    """Return the bytes for the bodies of one server process.

    Args:
        setting: Most bytes.
        processes: Server processes that share the container.
        limit: Bytes that the container may use; None for any number.
    """
    return setting if limit is None else max(SMALLEST, min(setting, int(SHARE * limit / processes)))


class BodyMemory:
    """Budget of bytes; belongs to one event loop. Bodies that find it used up wait, first come first served.

    Args:
        capacity: Bytes in all.
        metrics: Counts refusals.
    """

    def __init__(self, capacity: int, metrics: Metrics) -> None:
        self.capacity = capacity
        self._metrics = metrics
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def grab(self, amount: int) -> bool:
        """Take bytes if they are free; return whether they were."""
        if self._waiting or self._taken + amount > self.capacity:
            return False
        self._taken += amount
        return True

    async def wait(self, amount: int) -> None:
        """Take bytes when they are free.

        Raises:
            Overloaded: They were not for `PATIENCE` seconds.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (amount, future)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(PATIENCE):
                await future
        except BaseException as error:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self.give(0)
            else:
                self.give(amount)  # granted and given up in the same moment
            if not isinstance(error, TimeoutError):
                raise
            self.refused(Overloaded.code)
            raise Overloaded("the bodies of other requests take all memory that is meant for them") from None

    def give(self, amount: int) -> None:
        """Give bytes back to those that wait."""
        self._taken -= amount
        while self._waiting and self._taken + self._waiting[0][0] <= self.capacity:
            wanted, future = self._waiting.popleft()
            self._taken += wanted
            if not future.done():
                future.set_result(None)

    def refused(self, code: str) -> None:
        """Count a refusal."""
        self._metrics.count(names.API_REFUSED, 1, reason=code)


class Share:
    """The part of the budget that one request has.

    Args:
        memory: The budget.
    """

    __slots__ = ("_memory", "_taken")

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._taken = 0

    async def hold(self, amount: int) -> None:
        """Have this many bytes from now on.

        Raises:
            BodyTooLarge: They are more than the whole budget.
            Overloaded: They were not free in time.
        """
        more = amount - self._taken
        if amount > self._memory.capacity:
            self._memory.refused(BodyTooLarge.code)
            raise BodyTooLarge(
                f"the body would take about {amount} bytes of memory once it is parsed; the limit is "
                f"{self._memory.capacity}: send fewer values at once"
            )
        if more <= 0:
            self._memory.give(-more)
        elif not self._memory.grab(more):
            await self._memory.wait(more)
        self._taken = amount

    def release(self) -> None:
        """Give all bytes back."""
        if self._taken:
            self._memory.give(self._taken)
            self._taken = 0


def parsed_size(body: bytes) -> int:
    """Return the bytes that a JSON text and its value take together, at most."""
    in_text = 1 + _width(body)
    size = in_text * len(body) + _weight(body)
    if size >= LARGE:
        rest = _TEXTS.sub(b'""', body)
        size = in_text * (len(body) - len(rest)) + _PER_BYTE * len(rest) + _weight(rest)
    return size


def _width(body: bytes) -> int:
    """Return the bytes that a character of the value's texts takes, at most."""
    if body.isascii() and b"\\u" not in body:
        return 1
    return 4 if any(mark in body for mark in _WIDEST) else 2


def _weight(body: bytes) -> int:
    return sum(weight * body.count(mark) for mark, weight in _WEIGHTS)
