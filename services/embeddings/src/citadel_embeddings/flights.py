"""Single flight: each text is computed once, in this process and across the fleet.

In the process, whoever asks for a key that is under way joins it. Across the fleet a claim in the cache says
who computes; the others look until the vector is there, or the claim lapses and they compute it themselves.
"""

import asyncio
import functools
import time
from collections.abc import Sequence
from dataclasses import replace

from citadel_common.deadline import Deadline
from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.errors import CitadelError, DeadlineExceeded
from citadel_contracts import Lane
from citadel_embeddings.coalescer import Coalescer
from citadel_embeddings.work import CallKey, Computed, Item, fail_if_crashed

FIRST_LOOK = 0.02
LONGEST_PAUSE = 0.25
"""Seconds between looks for a vector that another process computes."""


class Flights:
    """The keys under way in this process; belongs to one event loop."""

    def __init__(self, cache: EmbeddingCache) -> None:
        self._cache = cache
        self._coalescers: dict[str, Coalescer] = {}
        self._under_way: dict[str, Item] = {}
        self._claims: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def add_backend(self, name: str, coalescer: Coalescer) -> None:
        """Names the coalescer of a backend."""
        self._coalescers[name] = coalescer

    async def fetch(
        self, call: CallKey, texts: dict[str, str], *, cached: bool, lane: Lane, deadline: Deadline
    ) -> dict[str, Computed | CitadelError]:
        """The vector or error of each key; `shared` where another request or process had it computed.

        Args:
            call: What the texts need of their call.
            texts: By key, prefixes included.
            cached: Whether claims are taken and vectors stored.
            lane: How urgent they are.
            deadline: When the caller stops waiting; the computation goes on for others.
        """
        items, joined = self._join_or_start(call, texts, cached=cached, lane=lane, deadline=deadline)
        await asyncio.wait([item.future for item in items.values()], timeout=max(0.0, deadline.remaining))
        results = {key: _result_of(item) for key, item in items.items()}
        return {key: _shared(result) if key in joined else result for key, result in results.items()}

    def _join_or_start(
        self, call: CallKey, texts: dict[str, str], *, cached: bool, lane: Lane, deadline: Deadline
    ) -> tuple[dict[str, Item], set[str]]:
        """The item of each key, and the keys whose item was under way."""
        items: dict[str, Item] = {}
        fresh: list[Item] = []
        joined: set[str] = set()
        loop = asyncio.get_running_loop()
        for key, text in texts.items():
            flight = key if cached else f"uncached:{key}"
            item = self._under_way.get(flight)
            if item is None:
                item = Item(key, text, cached, lane, deadline, loop.create_future(), since=time.monotonic())
                self._under_way[flight] = item
                item.future.add_done_callback(functools.partial(self._landed, flight))
                fresh.append(item)
            else:
                joined.add(key)
                item.join(deadline)
                self._coalescers[call.backend].promote(call, item, lane)
            item.is_wanted_by_current_span()
            items[key] = item
        if fresh:
            self._start(call, fresh, cached=cached)
        return items, joined

    def _landed(self, flight: str, _: asyncio.Future[Computed]) -> None:
        self._under_way.pop(flight, None)

    def _start(self, call: CallKey, items: list[Item], *, cached: bool) -> None:
        if not cached:
            self._coalescers[call.backend].submit(call, items)
            return
        task = asyncio.get_running_loop().create_task(self._claim_and_compute(call, items))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(functools.partial(fail_if_crashed, items))

    async def _claim_and_compute(self, call: CallKey, items: list[Item]) -> None:
        others = await self._claim(call, items)
        pause = FIRST_LOOK
        while others:
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
            others = await self._look(call, others)
            others = await self._claim(call, [item for item in others if item.deadline.remaining > 0])

    async def _claim(self, call: CallKey, items: Sequence[Item]) -> list[Item]:
        """Sends what this process may compute to the backend; the rest."""
        if not items:
            return []
        granted = await self._cache.claim_many([item.key for item in items])
        ours = [item for item, mine in zip(items, granted, strict=True) if mine]
        if ours:
            self._claims.update(item.key for item in ours)
            self._coalescers[call.backend].submit(call, ours)
        return [item for item, mine in zip(items, granted, strict=True) if not mine]

    async def _look(self, call: CallKey, items: Sequence[Item]) -> list[Item]:
        """Settles what another process has stored, and what nobody waits for; the rest."""
        stored = await self._cache.peek_many([item.key for item in items], size=call.expected)
        for item, hit in zip(items, stored, strict=True):
            if hit is not None:
                item.outcome = Computed(hit, 0, shared=True)
            elif item.deadline.remaining <= 0:
                item.outcome = DeadlineExceeded("another process did not compute the text in time")
            item.settle()
        return [item for item in items if item.outcome is None]

    async def settle(self, items: Sequence[Item]) -> None:
        """Stores vectors, releases claims, then answers: a caller's next look finds what it was given."""
        good = {i.key: i.outcome.stored for i in items if i.cached and isinstance(i.outcome, Computed)}
        failed = [i.key for i in items if i.cached and not isinstance(i.outcome, Computed)]
        if good:
            await self._cache.put_many(good)
        if failed:
            await self._cache.release_many(failed)
        for item in items:
            self._claims.discard(item.key)
            item.settle()

    async def aclose(self) -> None:
        """Ends what waits for other processes, and gives up the claims on what was not finished."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._claims:
            await self._cache.release_many(list(self._claims))


def _result_of(item: Item) -> Computed | CitadelError:
    if not item.future.done():
        return DeadlineExceeded("no backend embedded the text before the deadline")
    if item.future.cancelled():
        return DeadlineExceeded("the worker stopped before the text was embedded")
    error = item.future.exception()
    if error is None:
        return item.future.result()
    return error if isinstance(error, CitadelError) else CitadelError(f"internal error: {type(error).__name__}")


def _shared(result: Computed | CitadelError) -> Computed | CitadelError:
    return replace(result, shared=True) if isinstance(result, Computed) else result
