"""Joins the texts of many requests into backend calls.

Texts that can share a call wait in a lane. When a URL has room they leave together, at most a budget of texts
and tokens at a time. While the backend is busy a lane waits a few milliseconds for company; an idle backend
gets its texts at once.
"""

import asyncio
import functools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from citadel_common.errors import BackendUnavailable
from citadel_embeddings.calls import BatchCaller
from citadel_embeddings.endpoints import Endpoints
from citadel_embeddings.work import Item, LaneKey, fail_if_crashed

SMALLEST_SHARE = 8
"""Texts below which a call is not split further to use free slots: its fixed cost would dominate."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bounds of one call, and the seconds a lane waits for company."""

    texts: int
    tokens: int
    linger: float


@dataclass
class _Lane:
    waiting: deque[Item] = field(default_factory=deque)
    dispatcher: asyncio.Task[None] | None = None
    full: asyncio.Event = field(default_factory=asyncio.Event)


class Coalescer:
    """The lanes of one backend; belongs to one event loop."""

    def __init__(self, caller: BatchCaller, endpoints: Endpoints, budget: Budget) -> None:
        self._caller = caller
        self._endpoints = endpoints
        self._budget = budget
        self._lanes: dict[LaneKey, _Lane] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def submit(self, key: LaneKey, items: Sequence[Item]) -> None:
        """Puts items in their lane; their futures will be answered."""
        lane = self._lanes.setdefault(key, _Lane())
        lane.waiting.extend(items)
        if len(lane.waiting) >= self._budget.texts:
            lane.full.set()
        if lane.dispatcher is None:
            lane.dispatcher = asyncio.create_task(self._dispatch(key, lane))
            lane.dispatcher.add_done_callback(functools.partial(fail_if_crashed, lane.waiting))

    async def _dispatch(self, key: LaneKey, lane: _Lane) -> None:
        """Runs while the lane has texts; each call gets a task of its own."""
        try:
            while lane.waiting:
                if not await self._room(key, lane):
                    continue
                if not self._endpoints.is_idle:
                    await self._linger(lane)
                self._start(key, self._take(lane, self._endpoints.free_slots(key.model)))
                await asyncio.sleep(0)  # the call takes its slot before the next look
        finally:
            lane.dispatcher = None
            self._lanes.pop(key, None)

    async def _room(self, key: LaneKey, lane: _Lane) -> bool:
        """Whether there is a free slot; items whose deadline passes meanwhile are failed."""
        try:
            await self._endpoints.wait_for_room(key.model, lane.waiting[0].deadline)
        except BackendUnavailable as error:
            late = [item for item in lane.waiting if item.deadline.remaining <= 0]
            for item in late:
                lane.waiting.remove(item)
                item.outcome = error
            await self._caller.settle(late)
            return False
        return True

    async def _linger(self, lane: _Lane) -> None:
        lane.full.clear()
        if len(lane.waiting) >= self._budget.texts:
            return
        try:
            async with asyncio.timeout(self._budget.linger):
                await lane.full.wait()
        except TimeoutError:
            return

    def _take(self, lane: _Lane, free_slots: int) -> list[Item]:
        share = max(SMALLEST_SHARE, math.ceil(len(lane.waiting) / max(1, free_slots)))
        most = min(self._budget.texts, share)
        batch: list[Item] = []
        tokens = 0
        while lane.waiting and len(batch) < most:
            tokens += lane.waiting[0].tokens
            if batch and tokens > self._budget.tokens:
                break
            batch.append(lane.waiting.popleft())
        return batch

    def _start(self, key: LaneKey, batch: list[Item]) -> None:
        if not batch:
            return
        task = asyncio.create_task(self._caller.run(key, batch))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        task.add_done_callback(functools.partial(fail_if_crashed, batch))

    async def aclose(self) -> None:
        """Ends calls under way; their texts are answered with the cancellation."""
        tasks = [*self._calls, *(lane.dispatcher for lane in self._lanes.values() if lane.dispatcher)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
