"""Batches the texts of many requests into backend calls.

Texts that can share a call wait in one queue. When an endpoint has room they leave together, the most urgent first, at
most a budget of texts and tokens at a time. While the backend is busy they wait a few milliseconds for company; an idle
backend gets its texts at once. `batch_calls` sees each batch through.
"""

import asyncio
import functools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from citadel_common.errors import BackendUnavailable, CitadelError, DeadlineExceeded
from citadel_contracts import Lane
from citadel_embeddings.backends.base import ModelChanged
from citadel_embeddings.batch_calls import BatchCaller
from citadel_embeddings.endpoints.pool import EndpointPool, Slot
from citadel_embeddings.items import Batch, BatchKey, Item, fail_if_crashed

SMALLEST_SHARE = 8
"""Texts below which a batch is not split further to use all slots, and up to which it waits for company: the fixed cost
of a call would dominate."""


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

    def abandon(self, key: BatchKey, items: Sequence[Item]) -> None:
        """Take the items that still wait for a call out of the queue: nobody waits for them any more."""
        group = self._groups.get(key)
        waiting = [item for item in items if item.queued]
        if group is None or not waiting:
            return
        for item in waiting:
            group.queue.remove(item)
            item.abandoned = True
        task = asyncio.create_task(self._caller.fail(waiting, DeadlineExceeded("nobody waits for the text any more")))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _dispatch(self, key: BatchKey, group: _Group) -> None:
        """Send batches while texts wait; each call runs in a task of its own."""
        try:
            while (head := group.queue.peek()) is not None:
                slot = await self._acquire(key, group, head)
                if slot is None:
                    continue
                if self._pool.calls_in_flight:
                    await self._linger(group)
                items = self._take(key, group, self._pool.most_calls(slot))
                if not items:  # abandoned while they waited for the slot
                    self._pool.release(slot)
                    continue
                self._start(key, items, slot)
                await asyncio.sleep(0)  # the call adds its tokens to the endpoint's before the next one is chosen
        finally:
            group.dispatcher = None
            self._groups.pop(key, None)

    async def _acquire(self, key: BatchKey, group: _Group, head: Item) -> Slot | None:
        """Return a slot for the first item; None after failing the items that waited too long for one."""
        try:
            return await self._pool.acquire(key.model, head.deadline, since=head.since, version=key.version)
        except BackendUnavailable as error:
            await self._fail(group, [item for item in group.queue if self._is_late(key, item)], error)
        except ModelChanged as error:
            await self._fail(group, list(group.queue), error)
        return None

    async def _fail(self, group: _Group, items: Sequence[Item], error: CitadelError) -> None:
        for item in items:
            group.queue.remove(item)
        await self._caller.fail(items, error)

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

    def _take(self, key: BatchKey, group: _Group, slots: int) -> list[Item]:
        """Take the next items within the budget, so that all slots together could empty the queue.

        A text that a server will refuse as too long travels alone.
        """
        share = max(SMALLEST_SHARE, math.ceil(len(group.queue) / slots))
        most = min(self._budget.texts, share)
        items: list[Item] = []
        tokens = 0
        while len(items) < most and (item := group.queue.peek()) is not None:
            tokens += item.tokens
            alone = self._pool.is_overlong(key.model, item.tokens)
            if items and (alone or tokens > self._budget.tokens):
                break
            group.queue.remove(item)
            items.append(item)
            if alone:
                break
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
