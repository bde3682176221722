"""The engine's event loop in a thread of its own, and how task threads call into it.

Calls that arrive together wake the loop once, and a caller waits on a bare lock: the futures of the standard library
cost more than the engine's own work on a cached text.
"""

import asyncio
import concurrent.futures
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import uvloop

from citadel_common.deadline import Deadline
from citadel_common.errors import DeadlineExceeded
from citadel_common.tasks.verdict import HandBack

T = TypeVar("T")
MARGIN = 5.0
"""Seconds past a deadline that a call may take to say so itself."""


class LoopThread:
    """Runs one event loop; thread-safe."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._arrived: deque[_Call[Any]] = deque()
        self._summoned = False
        self._calls: set[_Call[Any]] = set()
        self._interrupted = False
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], deadline: Deadline) -> T:
        """The coroutine's result.

        Raises:
            DeadlineExceeded: It did not end in time; it is cancelled.
            HandBack: The worker is stopping and its grace is over.
        """
        call = _Call(coroutine)
        self._arrived.append(call)
        if not self._summoned:
            self._summoned = True
            self._loop.call_soon_threadsafe(self._start_arrived)
        try:
            return call.result(timeout=max(0.0, deadline.remaining) + MARGIN)
        except asyncio.CancelledError:
            raise HandBack from None
        except TimeoutError:
            self._loop.call_soon_threadsafe(call.cancel)
            raise DeadlineExceeded from None

    def interrupt(self) -> None:
        """Cancels the calls under way and all further ones."""
        self._loop.call_soon_threadsafe(self._interrupt)

    def close_after(self, goodbye: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs a last coroutine and stops the loop; neither may take long."""
        future = asyncio.run_coroutine_threadsafe(goodbye(), self._loop)
        concurrent.futures.wait([future], timeout=MARGIN)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=MARGIN)

    def _start_arrived(self) -> None:
        self._summoned = False  # before the look: who arrives from now on summons again
        while self._arrived:
            call = self._arrived.popleft()
            self._calls.add(call)
            call.start(self._calls.discard)
            if self._interrupted:
                call.cancel()

    def _interrupt(self) -> None:
        self._interrupted = True
        for call in self._calls:
            call.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()


class _Call(Generic[T]):
    """One coroutine: `result` is for the caller's thread, the rest for the loop's."""

    __slots__ = ("_context", "_coroutine", "_ended", "_task")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._context = contextvars.copy_context()  # the caller's: calls that arrive together start together
        self._ended = threading.Lock()
        self._ended.acquire()
        self._task: asyncio.Task[T] | None = None

    def start(self, on_end: "Callable[[_Call[T]], None]") -> None:
        def ended(_: asyncio.Task[T]) -> None:
            on_end(self)
            self._ended.release()

        self._task = asyncio.get_running_loop().create_task(self._coroutine, context=self._context)
        self._task.add_done_callback(ended)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def result(self, *, timeout: float) -> T:
        """What the coroutine returns or raises.

        Raises:
            TimeoutError: It has not ended in time.
        """
        if not self._ended.acquire(timeout=timeout) or self._task is None:
            raise TimeoutError
        return self._task.result()
