"""An event loop in a thread of its own, where checks run.

It outlives every check, so that what a check gives up on (a name that does not resolve) ends without anybody waiting.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from citadel_common.errors import DeadlineExceeded
from citadel_common.tasks.failure_policy import HandBack

T = TypeVar("T")
MARGIN = 5.0
"""Seconds past its own deadline after which a call is given up."""


class LoopThread:
    """Runs one event loop; thread-safe."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._calls: set[concurrent.futures.Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="checks", daemon=True)
        self._thread.start()

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Starts a coroutine; `result_of` waits for it."""
        call = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    def result_of(self, call: "concurrent.futures.Future[T]", timeout: float) -> T:
        """What a call returns.

        Args:
            call: From `begin`.
            timeout: Seconds it was told to take.

        Raises:
            DeadlineExceeded: It does not end.
            HandBack: The worker is stopping.
        """
        try:
            return call.result(timeout=max(0.0, timeout) + MARGIN)
        except concurrent.futures.CancelledError:
            raise HandBack from None
        except TimeoutError:
            call.cancel()
            raise DeadlineExceeded from None

    def interrupt(self) -> None:
        """Cancels the calls under way."""
        for call in list(self._calls):
            call.cancel()

    def close(self) -> None:
        """Cancels everything and stops the loop."""
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop)
        self._thread.join(timeout=MARGIN)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=1.0)
    asyncio.get_running_loop().stop()
