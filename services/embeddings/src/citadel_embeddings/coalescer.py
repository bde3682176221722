"""Joins the texts of many requests into backend calls.

Texts that can share a call wait together. When a URL has room they leave together, the most urgent first, at most
a budget of texts and tokens at a time. While the backend is busy they wait a few milliseconds for company; an idle
backend gets its texts at once.
"""

import asyncio
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from citadel_common.errors import BackendUnavailable
from citadel_contracts import Lane
from citadel_embeddings.calls import BatchCaller
from citadel_embeddings.endpoints import Endpoints
from citadel_embeddings.waiting import Waiting
from citadel_embeddings.work import CallKey, Item, fail_if_crashed

SMALLEST_SHARE = 8
"""Texts below which a call is not split further to use all slots, and up to which it waits for company: its fixed
cost would dominate."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bounds of one call, and the seconds texts wait for company."""

    texts: int
    tokens: int
    linger: float


@dataclass
class _Group:
    """Texts that can share a call, and the task that sends them off."""

    waiting: Waiting = field(default_factory=Waiting)
    dispatcher: asyncio.Task[None] | None = None
    full: asyncio.Event = field(default_factory=asyncio.Event)


class Coalescer:
    """The texts on their way to one backend; belongs to one event loop."""

    def __init__(self, caller: BatchCaller, endpoints: Endpoints, budget: Budget) -> None:
        self._caller = caller
        self._endpoints = endpoints
        self._budget = budget
        self._company = min(budget.texts, SMALLEST_SHARE)
        self._groups: dict[CallKey, _Group] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def submit(self, key: CallKey, items: Sequence[Item]) -> None:
        """Takes items on; their futures will be answered."""
        group = self._groups.setdefault(key, _Group())
        group.waiting.add(items)
        if len(group.waiting) >= self._company:
            group.full.set()
        if group.dispatcher is None:
            group.dispatcher = asyncio.create_task(self._dispatch(key, group))
            group.dispatcher.add_done_callback(functools.partial(fail_if_crashed, group.waiting))

    def promote(self, key: CallKey, item: Item, lane: Lane) -> None:
        """Somebody in more of a hurry wants an item too."""
        group = self._groups.get(key)
        if group is None:
            item.lane = min(item.lane, lane)
        else:
            group.waiting.promote(item, lane)

    async def _dispatch(self, key: CallKey, group: _Group) -> None:
        """Runs while texts wait; each call gets a task of its own."""
        try:
            while group.waiting:
                if not await self._room(key, group):
                    continue
                if not self._endpoints.is_idle:
                    await self._linger(group)
                self._start(key, self._take(group, self._endpoints.slots(key.model)))
                await asyncio.sleep(0)  # the call takes its slot before the next look
        finally:
            group.dispatcher = None
            self._groups.pop(key, None)

    async def _room(self, key: CallKey, group: _Group) -> bool:
        """Whether there is a free slot; items whose deadline passes meanwhile, or whose patience, are failed."""
        head = group.waiting.peek()
        if head is None:
            return False
        try:
            await self._endpoints.wait_for_room(key.model, head.deadline, head.since)
        except BackendUnavailable as error:
            late = [item for item in group.waiting if self._is_late(key, item)]
            for item in late:
                group.waiting.remove(item)
                item.outcome = error
            await self._caller.settle(late)
            return False
        return True

    def _is_late(self, key: CallKey, item: Item) -> bool:
        return item.deadline.remaining <= 0 or self._endpoints.is_given_up(key.model, item.since)

    async def _linger(self, group: _Group) -> None:
        group.full.clear()
        if len(group.waiting) >= self._company:
            return
        try:
            async with asyncio.timeout(self._budget.linger):
                await group.full.wait()
        except TimeoutError:
            return

    def _take(self, group: _Group, slots: int) -> list[Item]:
        share = max(SMALLEST_SHARE, math.ceil(len(group.waiting) / max(1, slots)))
        most = min(self._budget.texts, share)
        batch: list[Item] = []
        tokens = 0
        while len(batch) < most and (item := group.waiting.peek()) is not None:
            tokens += item.tokens
            if batch and tokens > self._budget.tokens:
                break
            group.waiting.remove(item)
            batch.append(item)
        return batch

    def _start(self, key: CallKey, batch: list[Item]) -> None:
        if not batch:
            return
        task = asyncio.create_task(self._caller.run(key, batch))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        task.add_done_callback(functools.partial(fail_if_crashed, batch))

    async def aclose(self) -> None:
        """Ends calls under way; their texts are answered with the cancellation."""
        tasks = [*self._calls, *(group.dispatcher for group in self._groups.values() if group.dispatcher)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
