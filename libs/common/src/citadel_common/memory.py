"""Memory that a process's work may take at once: work waits for room, so that concurrency cannot kill the process.

A piece of work runs inside `MemoryBudget.run`. Before it makes something large it says so by `take`. While there is
room, that costs next to nothing. Without room the piece is broken off, its transaction is rolled back, and its thread
waits, holding neither memory nor a connection, until the piece can have what it asked for. Then it begins anew. A piece
must therefore have no lasting effect before its last `take`. Nothing that holds memory waits for more, so no two pieces
block each other.
"""

import ctypes
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from citadel_common.errors import PayloadTooLarge

T = TypeVar("T")
UNCOUNTED = 64 * 2**10
"""Bytes that a piece of work takes without asking; most take less."""
_STEP = 2**20
"""Bytes that are asked for at once, so that growth by small parts costs little."""
_SMALL = 16
"""A piece may pass those that wait if it asks for this part of the whole or less."""


_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""Parameters of glibc's `mallopt`; see mallopt(3)."""


def return_what_is_freed() -> None:
    """Let the allocator return large blocks to the system as soon as they are freed; only glibc needs that.

    glibc raises its threshold for mapped blocks up to 32 MB by itself, and keeps a heap per thread: what one large
    value has taken would stay with the process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**18)
        mallopt(_ARENA_MAX, 2)


class _NoRoom(Exception):
    """The piece needs so many bytes in all, which are not free now."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class _Piece:
    """A piece of work: the bytes that it has taken, and those that its budget holds for it."""

    __slots__ = ("budget", "held", "taken")

    def __init__(self, budget: "MemoryBudget", held: int) -> None:
        self.budget = budget
        self.held = held
        self.taken = 0


_HERE = threading.local()


def take(size: int) -> None:
    """Count bytes that the piece of work in this thread is about to use; outside a piece nothing is counted.

    Raises:
        PayloadTooLarge: The piece needs more than the whole budget.
    """
    piece: _Piece | None = getattr(_HERE, "piece", None)
    if piece is None:
        return
    piece.taken += size
    if piece.taken > piece.held + UNCOUNTED:
        piece.budget.hold_more(piece)


class Held:
    """Bytes that are held until `release`."""

    __slots__ = ("_release", "_size")

    def __init__(self, size: int, release: Callable[[int], None]) -> None:
        self._size = size
        self._release = release

    def release(self) -> None:
        """Give the bytes back, once."""
        size, self._size = self._size, 0
        if size:
            self._release(size)


class HeldMemory:
    """Bytes that are held by what no thread waits for, such as calls that are under way; thread-safe.

    Args:
        size: The bytes; what needs more than that is let in alone.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """Bytes that nobody holds."""
        return self._free

    def hold(self, size: int, later: Callable[[], object]) -> Held | None:
        """Hold some bytes; without room, return None and call `later`, from any thread, when there may be room."""
        size = 0 if size <= UNCOUNTED else min(size, self._size)
        with self._lock:
            if size > self._free:
                self._waiting.append((size, later))
                return None
            self._free -= size
        return Held(size, self._give_back)

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._free += size
            room, woken = self._free, []
            while self._waiting and self._waiting[0][0] <= room:
                wanted, later = self._waiting.popleft()
                room -= wanted
                woken.append(later)
        for later in woken:
            later()


class MemoryBudget:
    """Bytes that all pieces of work may hold at once; thread-safe. First come, first served, but for small pieces.

    Args:
        size: The bytes.
        setting: Name of the setting that says so.
    """

    def __init__(self, size: int, *, setting: str) -> None:
        self.size = size
        self._setting = setting
        self._free = size
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        """Bytes that nobody holds."""
        return self._free

    @property
    def waiting(self) -> int:
        """Pieces of work that wait for room."""
        return len(self._waiting)

    def run(self, work: Callable[[], T]) -> T:
        """Return what a piece of work returns; begin it anew whenever it had to wait for room.

        Raises:
            PayloadTooLarge: It needs more than the whole budget.
        """
        if getattr(_HERE, "piece", None) is not None:  # a part of the piece that this thread is at
            return work()
        wanted = 0
        while True:
            if wanted:
                self._wait_for(wanted)
            piece = _HERE.piece = _Piece(self, wanted)
            try:
                return work()
            except _NoRoom as more:
                wanted = more.size
            finally:
                _HERE.piece = None
                self._release(piece.held)

    def hold_more(self, piece: _Piece) -> None:
        """Hold what a piece has taken, or break it off."""
        if piece.taken > self.size:
            limit = f"the limit ({self._setting}) for all of its work at once is {self.size:,}"
            raise PayloadTooLarge(f"the values would take {piece.taken:,} bytes of memory or more; {limit}")
        more = min(piece.taken + _STEP, self.size) - piece.held
        with self._changed:
            if more > self._free or (self._waiting and more > self.size // _SMALL):
                raise _NoRoom(min(2 * piece.taken + _STEP, self.size))  # twice: few beginnings, however it grows
            self._free -= more
        piece.held += more

    def _wait_for(self, size: int) -> None:
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(lambda: self._waiting[0] is turn and self._free >= size)
            self._waiting.popleft()
            self._free -= size
            self._changed.notify_all()

    def _release(self, size: int) -> None:
        if size:
            with self._changed:
                self._free += size
                self._changed.notify_all()
