"""Every text is settled, whenever its callers' deadlines pass and whoever cancels: nothing stays under way."""

import asyncio
import contextlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from citadel_common.deadline import Deadline
from citadel_common.errors import BackendUnavailable
from citadel_contracts import Lane
from citadel_embeddings.engine import EmbedRequest
from tests.support.engine import MODEL, SECONDS, FakeCache, World, vector_of
from tests.support.virtual_time import CLOCK, run_virtually

FOREVER = 20_000.0
"""Virtual seconds after which everything has had its time."""

numbers = st.integers(0, 4)
texts = st.one_of(
    st.builds("good {}".format, st.integers(0, 9)),
    st.builds("{} {} x".format, st.sampled_from(["lost", "failing", "busy"]), st.sampled_from([1, 3, 1_000_000])),
    st.builds("{} {}".format, st.sampled_from(["rejected", "zero", "missing"]), numbers),
    st.builds("crash {} x".format, st.sampled_from([0, 1, 30])),
)
callers = st.fixed_dictionaries(
    {
        "texts": st.lists(texts, min_size=1, max_size=8),
        "cached": st.booleans(),
        "lane": st.sampled_from(Lane),
        "truncate": st.sampled_from([None, True, False]),
        "begins": st.floats(0, 4 * SECONDS),
        "deadline": st.one_of(st.floats(0, 4 * SECONDS), st.floats(0, 90)),
        "cancelled": st.one_of(st.none(), st.floats(0, 6 * SECONDS)),
        "world": st.integers(0, 1),
    }
)


@contextlib.contextmanager
def slow_clock(step):
    """Let each look at the clock take so many seconds."""
    CLOCK.step = step
    try:
        yield
    finally:
        CLOCK.step = 0.0


async def call(worlds, caller):
    await asyncio.sleep(caller["begins"])
    request = EmbedRequest(
        text=caller["texts"], model=MODEL, cache_enabled=caller["cached"], truncate=caller["truncate"]
    )
    engine = worlds[caller["world"] % len(worlds)].engine
    task = asyncio.ensure_future(engine.embed(request, Deadline.after(caller["deadline"]), caller["lane"]))
    if caller["cancelled"] is not None:
        await asyncio.wait({task}, timeout=caller["cancelled"])
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, BackendUnavailable):
        response = await task
        for text, vector, result in zip(caller["texts"], response.vectors, response.results, strict=True):
            assert (vector is None) == (result.error is not None)
            assert vector is None or np.array_equal(vector, vector_of(text))


@given(
    st.lists(callers, min_size=1, max_size=8),
    st.sampled_from([0.0, 0.001, 0.03]),
    st.sampled_from([1, 2, 8]),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=150)
def test_nothing_stays_under_way(callers, step, batch, urls):
    cache = FakeCache()
    worlds = [World(urls=urls, batch=batch, concurrency=2, patience=5.0, cache=cache) for _ in range(2)]

    async def everything():
        with slow_clock(step):
            await asyncio.gather(*(call(worlds, caller) for caller in callers))
            await asyncio.sleep(FOREVER)
        return [world.single_flight.pending for world in worlds], await asked_again(worlds[0])

    pending, again = run_virtually(everything())
    assert pending == [0, 0]
    assert cache.claims == set()
    assert np.array_equal(again.vectors[0], vector_of("good again"))


async def asked_again(world):
    return await world.engine.embed(EmbedRequest(text=["good again"], model=MODEL), Deadline.after(1000))


class HeldCache(FakeCache):
    """A cache whose claims another process holds, until it lets them go."""

    held = True

    async def claim_many(self, keys):
        return [False] * len(keys) if self.held else await super().claim_many(keys)


def test_a_text_that_another_process_never_computes_is_settled_at_its_deadline():
    world = World(cache=HeldCache())

    async def late():
        request = EmbedRequest(text=["good late"], model=MODEL)
        response = await world.engine.embed(request, Deadline.after(5))
        await asyncio.sleep(30)
        pending, world.cache.held = world.single_flight.pending, False
        return response, pending, await world.engine.embed(request, Deadline.after(5))

    response, pending, again = run_virtually(late())
    assert (response.errors[0].code, pending) == ("deadline_exceeded", 0)
    assert np.array_equal(again.vectors[0], vector_of("good late"))
