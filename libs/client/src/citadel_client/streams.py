"""Work through chunks concurrently: results in order, a bounded number under way."""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import Future

from citadel_client.chunks import Chunk, ChunkResult

Job = tuple["Future[ChunkResult]", Chunk]
AHEAD = 2
"""Chunks under way or waiting per worker, so that one slow chunk does not idle the others."""


class Crew:
    """Threads that embed chunks; as daemons they never keep a process that was told to end."""

    def __init__(self, work: Callable[[Chunk], ChunkResult], size: int) -> None:
        self._work = work
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name="citadel-embed", daemon=True) for _ in range(size)]
        for thread in self._threads:
            thread.start()

    def submit(self, chunk: Chunk) -> "Future[ChunkResult]":
        """Have a chunk embedded."""
        future: Future[ChunkResult] = Future()
        self._jobs.put((future, chunk))
        return future

    def dismiss(self) -> None:
        """Take no more jobs; what is under way ends by itself."""
        for _ in self._threads:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, chunk = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._work(chunk))
            except BaseException as error:  # noqa: BLE001  (whatever it is, the caller gets it)
                future.set_exception(error)


def in_order(
    chunks: Iterable[Chunk], work: Callable[[Chunk], ChunkResult], parallel: int
) -> Generator[ChunkResult, None, None]:
    """Results in the order of the chunks, `parallel` calls at once."""
    crew = Crew(work, parallel)
    window: deque[Future[ChunkResult]] = deque()
    try:
        for chunk in chunks:
            window.append(crew.submit(chunk))
            if len(window) >= parallel * AHEAD:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        for future in window:
            future.cancel()
        crew.dismiss()


async def in_order_async(
    chunks: AsyncIterator[Chunk], work: Callable[[Chunk], Awaitable[ChunkResult]], parallel: int
) -> AsyncGenerator[ChunkResult, None]:
    """Results in the order of the chunks, `parallel` calls at once."""
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
