"""Single flight: each text is computed once, in this process and across the fleet.

In the process, a request for a key that is under way joins its item. Across the fleet a claim in the cache decides
which process computes; the others poll the cache until the vector is there, or until the claim lapses and one of them
gets it.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from citadel_common.deadline import Deadline
from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.errors import DeadlineExceeded
from citadel_contracts import Lane
from citadel_embeddings.batching import Batcher
from citadel_embeddings.items import BatchKey, Item, TextResult, fail_if_crashed

FIRST_POLL = 0.02
LONGEST_PAUSE = 0.25
"""Seconds between polls for a vector that another process computes; the pause doubles."""


class SingleFlight:
    """The keys under way in this process; belongs to one event loop.

    Args:
        cache: Holds the claims.
        batchers: By backend name.
        clock: The monotonic clock.
    """

    def __init__(
        self, cache: EmbeddingCache, batchers: Mapping[str, Batcher], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cache = cache
        self._batchers = batchers
        self._clock = clock
        self._under_way: dict[str, Item] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """Texts under way."""
        return len(self._under_way)

    async def fetch(
        self, batch_key: BatchKey, texts: dict[str, str], *, cached: bool, lane: Lane, deadline: Deadline
    ) -> dict[str, TextResult]:
        """Return the result of each key.

        Args:
            batch_key: What the texts need of their call.
            texts: By cache key, prefixes included.
            cached: Whether claims are taken and vectors stored.
            lane: How urgent the texts are.
            deadline: When the caller stops waiting; the computation goes on for others.
        """
        items, joined = self._join_or_start(batch_key, texts, cached=cached, lane=lane, deadline=deadline)
        # wait() leaves the futures alone when this caller is cancelled: other callers may share them
        try:
            await asyncio.wait([item.future for item in items.values()], timeout=max(0.0, deadline.remaining))
        except asyncio.CancelledError:
            self._abandon(batch_key, items.values())
            raise
        results = {key: _result_of(item) for key, item in items.items()}
        return {key: result.as_shared() if key in joined else result for key, result in results.items()}

    def _join_or_start(
        self, batch_key: BatchKey, texts: dict[str, str], *, cached: bool, lane: Lane, deadline: Deadline
    ) -> tuple[dict[str, Item], set[str]]:
        """Return the item of each key, and the keys whose item was under way."""
        items: dict[str, Item] = {}
        fresh: list[Item] = []
        joined: set[str] = set()
        loop = asyncio.get_running_loop()
        for key, text in texts.items():
            name = f"{key}:{cached}:{batch_key.cut}"
            item = self._under_way.get(name)
            if item is None or item.abandoned:
                item = Item(key, text, lane, deadline, loop.create_future(), since=self._clock())
                self._under_way[name] = item
                item.future.add_done_callback(functools.partial(self._remove, name, item))
                fresh.append(item)
            else:
                joined.add(key)
                item.extend_deadline(deadline)
                self._batchers[batch_key.backend].promote(batch_key, item, lane)
            item.waiting += 1
            item.add_current_span()
            items[key] = item
        if fresh:
            self._start(batch_key, fresh, cached=cached)
        return items, joined

    def _abandon(self, batch_key: BatchKey, items: Iterable[Item]) -> None:
        """Give up a cancelled caller's texts: those for which nobody else waits need not be sent."""
        for item in items:
            item.waiting -= 1
        self._batchers[batch_key.backend].abandon(batch_key, [item for item in items if not item.waiting])

    def _remove(self, name: str, item: Item, _: asyncio.Future[TextResult]) -> None:
        if self._under_way.get(name) is item:
            del self._under_way[name]

    def _start(self, batch_key: BatchKey, items: list[Item], *, cached: bool) -> None:
        if not cached:
            self._batchers[batch_key.backend].submit(batch_key, items)
            return
        task = asyncio.get_running_loop().create_task(self._claim_and_compute(batch_key, items))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(functools.partial(fail_if_crashed, items))

    async def _claim_and_compute(self, batch_key: BatchKey, items: list[Item]) -> None:
        others = await self._claim(batch_key, items)
        pause = FIRST_POLL
        while others:
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
            others = await self._poll(batch_key, others)
            others = await self._claim(batch_key, others)

    async def _claim(self, batch_key: BatchKey, items: Sequence[Item]) -> list[Item]:
        """Submit the items whose claim this process gets; return the others."""
        if not items:
            return []
        granted = await self._cache.claim_many([item.key for item in items])
        for item, claimed in zip(items, granted, strict=True):
            item.claimed = claimed
        ours = [item for item in items if item.claimed]
        if ours:
            self._batchers[batch_key.backend].submit(batch_key, ours)
        return [item for item in items if not item.claimed]

    async def _poll(self, batch_key: BatchKey, items: Sequence[Item]) -> list[Item]:
        """Answer items whose vector another process has stored, or whose deadline is over; return the others."""
        stored = await self._cache.peek_many([item.key for item in items], size=batch_key.vector_size)
        for item, hit in zip(items, stored, strict=True):
            if hit is not None:
                item.result = TextResult(stored=hit, source="shared")
            elif item.deadline.remaining <= 0:
                item.result = TextResult.failed(DeadlineExceeded("another process did not compute the text in time"))
            item.answer()
        return [item for item in items if item.result is None]

    async def aclose(self) -> None:
        """Stop polling, and release the claims on what is not finished; the batchers are closed before."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        claimed = [item.key for item in self._under_way.values() if item.claimed and not item.future.done()]
        if claimed:
            await self._cache.release_many(claimed)


def _result_of(item: Item) -> TextResult:
    if item.future.done():
        return item.future.result()
    return TextResult.failed(DeadlineExceeded("no backend embedded the text before the deadline"))
