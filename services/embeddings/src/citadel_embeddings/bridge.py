"""The engine's event loop in a thread of its own, and how task threads call into it."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from citadel_common.deadline import Deadline
from citadel_common.errors import DeadlineExceeded
from citadel_common.tasks.verdict import HandBack

T = TypeVar("T")
MARGIN = 5.0
"""Seconds past a deadline that a call may take to say so itself."""


class LoopThread:
    """Runs one event loop; thread-safe."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._calls: set[concurrent.futures.Future[Any]] = set()
        self._interrupted = False
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], deadline: Deadline) -> T:
        """The coroutine's result.

        Raises:
            DeadlineExceeded: It did not end in time; it is cancelled.
            HandBack: The worker is stopping and its grace is over.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._calls.add(future)
        if self._interrupted:
            future.cancel()
        try:
            return future.result(timeout=max(0.0, deadline.remaining) + MARGIN)
        except concurrent.futures.CancelledError:
            raise HandBack from None
        except TimeoutError:
            future.cancel()
            raise DeadlineExceeded from None
        finally:
            self._calls.discard(future)

    def interrupt(self) -> None:
        """Cancels the calls under way and all further ones."""
        self._interrupted = True
        for future in list(self._calls):
            future.cancel()

    def close_after(self, goodbye: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs a last coroutine and stops the loop; neither may take long."""
        future = asyncio.run_coroutine_threadsafe(goodbye(), self._loop)
        concurrent.futures.wait([future], timeout=MARGIN)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=MARGIN)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()
