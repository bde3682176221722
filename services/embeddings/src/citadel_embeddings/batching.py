"""Batches the texts of many requests into backend calls, and sees each batch through.

Texts that can share a call wait in one queue. When an endpoint has room they leave together, the most urgent first, at
most a budget of texts and tokens at a time. While the backend is busy they wait a few milliseconds for company; an idle
backend gets its texts at once. A failing call goes to another URL; a batch that keeps failing is halved until the bad
text stands alone, so that it never fails its neighbours.
"""

import asyncio
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.errors import BackendUnavailable, CitadelError, DeadlineExceeded, TextRejected, UnknownModel
from citadel_contracts import Lane
from citadel_embeddings.backends.base import ServerFailed, TextTooLong, TimedOut
from citadel_embeddings.endpoints.pool import EndpointPool, Slot
from citadel_embeddings.items import Batch, BatchKey, Item, TextResult, fail_if_crashed

SMALLEST_SHARE = 8
"""Texts below which a batch is not split further to use all slots, and up to which it waits for company: the fixed cost
of a call would dominate."""
ATTEMPTS = 3
"""Failing answers to the same texts, over all URLs, before the batch is halved or its one text given up."""


class PriorityQueue:
    """Items that wait for a batch: the most urgent lane first, in order of arrival within a lane."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[Item]] = {lane: deque() for lane in Lane}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the waiting items, the most urgent first."""
        return (item for lane, items in self._lanes.items() for item in items if item.queued and item.lane == lane)

    def add(self, items: Sequence[Item]) -> None:
        """Put items at the end of their lanes."""
        for item in items:
            item.queued = True
            self._lanes[item.lane].append(item)
        self._count += len(items)

    def promote(self, item: Item, lane: Lane) -> None:
        """Move an item to a more urgent lane; its old place is skipped later."""
        if lane >= item.lane:
            return
        item.lane = lane
        if item.queued:
            self._lanes[lane].append(item)

    def peek(self) -> Item | None:
        """Return the next item; None if the queue is empty."""
        for lane, items in self._lanes.items():
            while items and not (items[0].queued and items[0].lane == lane):
                items.popleft()
            if items:
                return items[0]
        return None

    def remove(self, item: Item) -> None:
        """Take an item out."""
        item.queued = False
        self._count -= 1


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
        elif isinstance(error, TextTooLong) and batch.key.cut and not batch.truncate:
            await self.run(replace(batch, truncate=True, attempt=1))
        elif batch.attempt < ATTEMPTS and not isinstance(error, TextTooLong | ServerFailed):
            await self.run(replace(batch, attempt=batch.attempt + 1))
        else:
            await self.fail(items, error)

    async def _settle(self, items: Sequence[Item]) -> None:
        """Store vectors and release claims, then answer."""
        # in this order: a caller who asks again right away finds the vector, and no other process finds a free claim
        results = {item.key: item.result for item in items if item.claimed and item.result is not None}
        good = {key: result.stored for key, result in results.items() if result.stored is not None}
        failed = [key for key, result in results.items() if result.stored is None]
        if good:
            await self._cache.put_many(good)
        if failed:
            await self._cache.release_many(failed)
        for item in items:
            item.answer()


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Most texts and estimated tokens of one call, and the seconds that texts wait for company."""

    texts: int
    tokens: int
    linger: float


@dataclass
class _Group:
    """Texts that can share a call, and the task that sends them."""

    queue: PriorityQueue = field(default_factory=PriorityQueue)
    dispatcher: asyncio.Task[None] | None = None
    full: asyncio.Event = field(default_factory=asyncio.Event)


class Batcher:
    """The texts on their way to one backend; belongs to one event loop."""

    def __init__(self, caller: BatchCaller, pool: EndpointPool, budget: Budget) -> None:
        self._caller = caller
        self._pool = pool
        self._budget = budget
        self._company = min(budget.texts, SMALLEST_SHARE)
        self._groups: dict[BatchKey, _Group] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def submit(self, key: BatchKey, items: Sequence[Item]) -> None:
        """Take items on; each will be answered."""
        group = self._groups.setdefault(key, _Group())
        group.queue.add(items)
        if len(group.queue) >= self._company:
            group.full.set()
        if group.dispatcher is None:
            group.dispatcher = asyncio.create_task(self._dispatch(key, group))
            group.dispatcher.add_done_callback(functools.partial(fail_if_crashed, group.queue))

    def promote(self, key: BatchKey, item: Item, lane: Lane) -> None:
        """Move an item to a more urgent lane, whether it waits here or is still to be submitted."""
        group = self._groups.get(key)
        if group is None:
            item.lane = min(item.lane, lane)
        else:
            group.queue.promote(item, lane)

    async def _dispatch(self, key: BatchKey, group: _Group) -> None:
        """Send batches while texts wait; each call runs in a task of its own."""
        try:
            while (head := group.queue.peek()) is not None:
                slot = await self._acquire(key, group, head)
                if slot is None:
                    continue
                if self._pool.calls_in_flight:
                    await self._linger(group)
                self._start(key, self._take(group, self._pool.most_calls(slot)), slot)
                await asyncio.sleep(0)  # the call adds its tokens to the endpoint's before the next one is chosen
        finally:
            group.dispatcher = None
            self._groups.pop(key, None)

    async def _acquire(self, key: BatchKey, group: _Group, head: Item) -> Slot | None:
        """Return a slot for the first item; None after failing the items that waited too long for one."""
        try:
            return await self._pool.acquire(key.model, head.deadline, since=head.since)
        except BackendUnavailable as error:
            late = [item for item in group.queue if self._is_late(key, item)]
            for item in late:
                group.queue.remove(item)
            await self._caller.fail(late, error)
            return None

    def _is_late(self, key: BatchKey, item: Item) -> bool:
        return item.deadline.remaining <= 0 or self._pool.is_given_up(key.model, item.since)

    async def _linger(self, group: _Group) -> None:
        """Wait for company."""
        group.full.clear()
        if len(group.queue) >= self._company:
            return
        try:
            async with asyncio.timeout(self._budget.linger):
                await group.full.wait()
        except TimeoutError:
            return

    def _take(self, group: _Group, slots: int) -> list[Item]:
        """Take the next items within the budget, so that all slots together could empty the queue."""
        share = max(SMALLEST_SHARE, math.ceil(len(group.queue) / slots))
        most = min(self._budget.texts, share)
        items: list[Item] = []
        tokens = 0
        while len(items) < most and (item := group.queue.peek()) is not None:
            tokens += item.tokens
            if items and tokens > self._budget.tokens:
                break
            group.queue.remove(item)
            items.append(item)
        return items

    def _start(self, key: BatchKey, items: list[Item], slot: Slot) -> None:
        task = asyncio.create_task(self._caller.run(Batch(key=key, items=items), slot))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        task.add_done_callback(functools.partial(fail_if_crashed, items))

    async def aclose(self) -> None:
        """Cancel the calls under way; their texts stay unanswered."""
        tasks = [*self._calls, *(group.dispatcher for group in self._groups.values() if group.dispatcher)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
