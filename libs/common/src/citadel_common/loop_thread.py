"""An event loop in a thread of its own, and how other threads run coroutines on it.

Calls that arrive together wake the loop once, and a caller waits on a bare lock: the futures of the standard library
cost more than the work on a cached text.
"""

import asyncio
import concurrent.futures
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import structlog

from citadel_common.deadline import Deadline
from citadel_common.errors import DeadlineExceeded
from citadel_common.tasks.failure_policy import HandBack

T = TypeVar("T")
log = structlog.get_logger(__name__)
MARGIN = 5.0
"""Seconds past its deadline in which a call may end by itself before it is cancelled."""


class LoopThread:
    """One event loop; thread-safe.

    Args:
        name: Name of the thread.
        loop_factory: Makes the event loop.
        margin: Seconds past its deadline after which a call is cancelled; also the bound of each part of `close`.
    """

    def __init__(
        self,
        name: str,
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        margin: float = MARGIN,
    ) -> None:
        self._loop = loop_factory()
        self._margin = margin
        self._arrived: deque[Call[Any]] = deque()
        self._woken = False
        self._calls: set[Call[Any]] = set()
        self._interrupted = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(
        self, coroutine: Coroutine[Any, Any, T], on_end: "Callable[[asyncio.Task[T]], object] | None" = None
    ) -> "Call[T]":
        """Start a coroutine in the caller's context.

        Args:
            coroutine: The coroutine.
            on_end: Called with the finished task, in the loop's thread; must return at once.
        """
        call = Call(coroutine, self._loop, on_end)
        self._arrived.append(call)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._start_arrived)
        return call

    def call(self, coroutine: Coroutine[Any, Any, T], deadline: Deadline) -> T:
        """Return the coroutine's result; see `result` for the errors."""
        return self.result(self.submit(coroutine), deadline)

    def result(self, call: "Call[T]", deadline: Deadline) -> T:
        """Wait for a call and return its result.

        Raises:
            DeadlineExceeded: The call did not end within the margin past the deadline; it is cancelled.
            HandBack: The call was cancelled: the worker is stopping and its grace is over.
        """
        try:
            return call.result(timeout=max(0.0, deadline.remaining) + self._margin)
        except asyncio.CancelledError:
            raise HandBack from None
        except TimeoutError:
            call.cancel()
            raise DeadlineExceeded from None

    def interrupt(self) -> None:
        """Cancel all calls, those under way and those to come."""
        self._loop.call_soon_threadsafe(self._interrupt)

    def close(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Run a last coroutine, cancel what still runs, then stop the loop; each takes the margin at most."""
        ending = asyncio.run_coroutine_threadsafe(self._end(last), self._loop)
        concurrent.futures.wait([ending], timeout=2 * self._margin)
        error = ending.exception() if ending.done() else TimeoutError()
        if error is not None:
            log.warning("loop_not_closed_cleanly", thread=self._thread.name, error=type(error).__name__)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=self._margin)

    def _start_arrived(self) -> None:
        self._woken = False  # before the deque is read: a call that arrives from now on wakes the loop again
        while self._arrived:
            call = self._arrived.popleft()
            self._calls.add(call)
            call.start(self._calls.discard)
            if self._interrupted:
                call.cancel_now()

    def _interrupt(self) -> None:
        self._interrupted = True
        for call in self._calls:
            call.cancel_now()

    async def _end(self, last: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        try:
            if last is not None:
                async with asyncio.timeout(self._margin):
                    await last()
        finally:
            running = asyncio.all_tasks() - {asyncio.current_task()}
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=self._margin)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()


class Call(Generic[T]):
    """A coroutine given to a loop thread."""

    __slots__ = ("_cancelled", "_context", "_coroutine", "_ended", "_loop", "_on_end", "_task")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        on_end: Callable[[asyncio.Task[T]], object] | None,
    ) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._on_end = on_end
        self._context = contextvars.copy_context()  # taken here: calls of several threads are started together
        self._ended = threading.Lock()
        self._ended.acquire()
        self._cancelled = False
        self._task: asyncio.Task[T] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the coroutine has ended; thread-safe."""
        return not self._ended.locked()

    def cancel(self) -> None:
        """Cancel the coroutine; thread-safe."""
        self._loop.call_soon_threadsafe(self.cancel_now)

    def result(self, *, timeout: float) -> T:
        """Wait for the end and return the coroutine's result, or raise its error; thread-safe.

        Raises:
            TimeoutError: The coroutine has not ended within `timeout` seconds.
            asyncio.CancelledError: The coroutine was cancelled.
        """
        if not self._ended.acquire(timeout=timeout) or self._task is None:
            raise TimeoutError
        self._ended.release()
        return self._task.result()

    def start(self, forget: "Callable[[Call[T]], None]") -> None:
        """Start the coroutine; for the loop's thread."""

        def ended(task: asyncio.Task[T]) -> None:
            forget(self)
            self._ended.release()
            if self._on_end is not None:
                self._on_end(task)

        self._task = self._loop.create_task(self._coroutine, context=self._context)
        self._task.add_done_callback(ended)
        if self._cancelled:
            self._task.cancel()

    def cancel_now(self) -> None:
        """Cancel the coroutine; for the loop's thread."""
        if self._task is None:
            self._cancelled = True  # by `start`: another thread was about to wake the loop for this call
        else:
            self._task.cancel()
