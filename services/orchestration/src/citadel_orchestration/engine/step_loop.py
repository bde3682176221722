"""The event loop on which steps execute: calls to LLMs and Qdrant wait there, and hold no thread."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import uvloop

END = 5.0
"""Seconds the loop gets to end."""


class StepLoop:
    """One event loop in a thread of its own; thread-safe."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, Any], on_end: "Callable[[Future[Any]], None]") -> "Future[Any]":
        """Starts a coroutine; `on_end` is called with its future, in the loop's thread, and must return at once."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        future.add_done_callback(on_end)
        return future

    def call(self, coroutine: Coroutine[Any, Any, Any], *, timeout: float) -> Any:
        """The coroutine's result, for start and end of the process."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def close(self) -> None:
        """Stops the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=END)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()
