"""Micro-batching: items that arrive while one call runs go out together in the next call.

No timer: an idle batcher calls at once, a busy one makes larger calls.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class MicroBatcher(Generic[T, R]):
    """Joins concurrent calls on one event loop into calls over lists.

    Args:
        call: Takes items, returns their results in order; its exception reaches each waiting caller.
        max_size: Most items in one call.
        parallel: Most calls at once.
    """

    def __init__(
        self, call: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, max_size: int = 512, parallel: int = 1
    ) -> None:
        self._call = call
        self._max_size = max_size
        self._parallel = parallel
        self._waiting: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._active = 0

    async def run(self, items: Sequence[T]) -> Sequence[R]:
        """Return the results of `items`, in order."""
        future: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if self._active < self._parallel:
            self._start()
        return await future

    def _start(self) -> None:
        self._active += 1
        task = asyncio.get_running_loop().create_task(self._drain())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._call_next()
        finally:
            # Here and not in a done-callback, which runs later: what arrived in between would wait for ever.
            self._active -= 1

    async def _call_next(self) -> None:
        group = self._take()
        items = [item for part, _ in group for item in part]
        try:
            results = await self._call(items)
        except BaseException as error:
            _fail(group, error)
            if not isinstance(error, Exception):
                raise
        else:
            _answer(group, results)

    def _take(self) -> list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]]:
        size = count = 0
        for part, _ in self._waiting:
            if count and size + len(part) > self._max_size:
                break
            size += len(part)
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group


def _answer(group: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]], results: Sequence[R]) -> None:
    start = 0
    for part, future in group:
        if not future.done():
            future.set_result(results[start : start + len(part)])
        start += len(part)


def _fail(group: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]], error: BaseException) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
