"""Process chunks concurrently: results in order, a bounded number of calls at once."""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import Future

from citadel_client.chunks import Chunk, ChunkResult

QueuedChunk = tuple["Future[ChunkResult]", Chunk]
AHEAD = 2
"""Chunks submitted per worker, so that one slow chunk does not leave the other workers idle."""


class WorkerPool:
    """Threads that process chunks.

    They are daemons, which those of `concurrent.futures` are not: a call under way must not delay the end of a
    process that was interrupted.
    """

    def __init__(self, work: Callable[[Chunk], ChunkResult], size: int) -> None:
        self._work = work
        self._queue: queue.SimpleQueue[QueuedChunk | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name="citadel-embed", daemon=True) for _ in range(size)]
        for thread in self._threads:
            thread.start()

    def submit(self, chunk: Chunk) -> "Future[ChunkResult]":
        """Queue a chunk and return the future of its result."""
        future: Future[ChunkResult] = Future()
        self._queue.put((future, chunk))
        return future

    def shutdown(self) -> None:
        """Let each thread end after the call it makes now."""
        for _ in self._threads:
            self._queue.put(None)

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            future, chunk = entry
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._work(chunk))
            except BaseException as error:  # noqa: BLE001  (raised by the future)
                future.set_exception(error)


def in_order(
    chunks: Iterable[Chunk], work: Callable[[Chunk], ChunkResult], parallel: int
) -> Generator[ChunkResult, None, None]:
    """Yield results in the order of the chunks, with up to `parallel` calls at once."""
    pool = WorkerPool(work, parallel)
    window: deque[Future[ChunkResult]] = deque()
    try:
        for chunk in chunks:
            window.append(pool.submit(chunk))
            if len(window) >= parallel * AHEAD:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        for future in window:
            future.cancel()
        pool.shutdown()


async def in_order_async(
    chunks: AsyncIterator[Chunk], work: Callable[[Chunk], Awaitable[ChunkResult]], parallel: int
) -> AsyncGenerator[ChunkResult, None]:
    """Yield results in the order of the chunks, with up to `parallel` calls at once."""
    free = asyncio.Semaphore(parallel)

    async def one(chunk: Chunk) -> ChunkResult:
        async with free:
            return await work(chunk)

    window: deque[asyncio.Task[ChunkResult]] = deque()
    try:
        async for chunk in chunks:
            window.append(asyncio.create_task(one(chunk)))
            if len(window) >= parallel * AHEAD:
                yield await window.popleft()
        while window:
            yield await window.popleft()
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)
