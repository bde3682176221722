"""Finds the result of every text of a batch: failover, bisecting, storing, answering.

A failing batch is halved until the bad text stands alone, so that it never fails its neighbours.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.errors import BackendUnavailable, CitadelError, DeadlineExceeded, TextRejected, UnknownModel
from citadel_embeddings.backends.base import ServerFailed, TextTooLong, TimedOut
from citadel_embeddings.endpoints.pool import EndpointPool, Slot
from citadel_embeddings.items import Batch, Item, TextResult

ATTEMPTS = 3
"""Failing answers to the same texts, over all URLs, before the batch is halved or its one text given up."""


class BatchCaller:
    """Sends batches to the endpoints of one backend.

    Args:
        pool: The endpoints.
        cache: Where vectors are stored and claims released.
        clock: The monotonic clock.
    """

    def __init__(
        self, pool: EndpointPool, cache: EmbeddingCache, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = pool
        self._cache = cache
        self._clock = clock

    async def run(self, batch: Batch, slot: Slot | None = None) -> None:
        """Answer every item of a batch, whatever happens.

        Args:
            batch: The items.
            slot: For the first call; without one the call waits for room.
        """
        try:
            url, results = await self._with_failover(batch, slot)
        except (TextRejected, ServerFailed) as error:
            await self._narrow_down(batch, error)
        except CitadelError as error:
            await self.fail(batch.items, error)
        else:
            await self._finish(replace(batch, avoid=batch.avoid | {url}), results)

    async def fail(self, items: Sequence[Item], error: CitadelError) -> None:
        """Answer items with an error."""
        for item in items:
            item.result = TextResult.failed(error)
        await self._settle(items)

    async def _with_failover(self, batch: Batch, slot: Slot | None) -> tuple[str, list[TextResult]]:
        """Call endpoints until one answers, the failures are too many, or the last caller gives up."""
        failed = unknown = 0
        while True:
            try:
                return await self._call(batch, slot)
            except DeadlineExceeded:
                if batch.deadline.remaining <= 0:  # else a caller with more time has joined meanwhile
                    raise
            except ServerFailed as error:
                failed += 1
                too_much = isinstance(error, TimedOut) and len(batch.items) > 1
                if failed >= ATTEMPTS or too_much:
                    raise
            except BackendUnavailable:
                if batch.deadline.remaining <= 0 or self._pool.is_given_up(batch.key.model, batch.since):
                    raise
            except UnknownModel:
                unknown += 1
                if unknown >= len(self._pool.urls):
                    raise
            slot = None

    async def _call(self, batch: Batch, slot: Slot | None) -> tuple[str, list[TextResult]]:
        """Make one call, and return the URL with the results."""
        deadline = batch.deadline
        if deadline.remaining <= 0:
            if slot is not None:
                self._pool.release(slot)
            raise DeadlineExceeded("no backend embedded the text before the deadline")
        slot = slot or await self._pool.acquire(batch.key.model, deadline, since=batch.since, avoid=batch.avoid)
        return slot.url, await self._pool.embed(slot, batch, deadline)

    async def _finish(self, batch: Batch, results: Sequence[TextResult]) -> None:
        """Answer the items that have a vector, and try the others again."""
        good, bad = [], []
        for item, result in zip(batch.items, results, strict=True):
            if result.error is None:
                item.result = result
                good.append(item)
            else:
                bad.append(item)
        await self._settle(good)
        if bad:
            problem = next(result.error for result in results if result.error is not None)
            await self._narrow_down(replace(batch, items=bad), problem)

    async def _narrow_down(self, batch: Batch, error: CitadelError) -> None:
        """Halve the batch. A single text is cut if it is too long, else tried again, else given up."""
        items = batch.items
        for item in items:
            item.since = self._clock()  # a server took the call: the wait for one begins anew
        if len(items) > 1:
            middle = len(items) // 2
            halves = (replace(batch, items=half) for half in (items[:middle], items[middle:]))
            await asyncio.gather(*(self.run(half) for half in halves))
        elif isinstance(error, TextTooLong) and not batch.truncate:
            await self.run(replace(batch, truncate=True, attempt=1))
        elif batch.attempt < ATTEMPTS and not isinstance(error, TextTooLong | ServerFailed):
            await self.run(replace(batch, attempt=batch.attempt + 1))
        else:
            await self.fail(items, error)

    async def _settle(self, items: Sequence[Item]) -> None:
        """Store vectors and release claims, then answer: whoever asks again right away finds the vector."""
        results = {item.key: item.result for item in items if item.claimed and item.result is not None}
        good = {key: result.stored for key, result in results.items() if result.stored is not None}
        failed = [key for key, result in results.items() if result.stored is None]
        if good:
            await self._cache.put_many(good)
        if failed:
            await self._cache.release_many(failed)
        for item in items:
            item.answer()
