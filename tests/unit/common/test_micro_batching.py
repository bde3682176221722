"""Natural batching: everyone gets his own results, an idle batcher calls at once, a busy one makes larger calls."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citadel_common.micro_batching import MicroBatcher


@given(
    st.lists(st.lists(st.integers(), max_size=8), max_size=20), st.integers(1, 10), st.integers(1, 3), st.integers(0, 4)
)
@settings(deadline=None, max_examples=60)
def test_everyone_gets_his_own_results(parts, max_size, parallel, pauses):
    sizes, running, most = [], 0, 0

    async def double(items):
        nonlocal running, most
        running += 1
        most = max(most, running)
        sizes.append(len(items))
        for _ in range(pauses):
            await asyncio.sleep(0)
        running -= 1
        return [2 * item for item in items]

    async def everything():
        batcher = MicroBatcher(double, max_size=max_size, parallel=parallel)
        return await asyncio.gather(*(batcher.run(part) for part in parts))

    assert asyncio.run(everything()) == [[2 * item for item in part] for part in parts]
    assert most <= parallel
    assert all(size <= max(max_size, *map(len, parts), 0) for size in sizes)


def test_items_that_arrive_during_a_call_share_the_next_call():
    calls = []

    async def everything():
        release = asyncio.Event()

        async def call(items):
            calls.append(list(items))
            await release.wait()
            return items

        batcher = MicroBatcher(call)
        tasks = [asyncio.ensure_future(batcher.run([number])) for number in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks += [asyncio.ensure_future(batcher.run([number])) for number in range(5, 8)]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*tasks)

    asyncio.run(everything())
    assert calls == [[0, 1, 2, 3, 4], [5, 6, 7]]


def test_an_error_reaches_those_of_its_call_only():
    async def call(items):
        if 0 in items:
            raise ValueError("bad")
        return items

    async def everything():
        batcher = MicroBatcher(call, max_size=1)
        return await asyncio.gather(*(batcher.run([n]) for n in range(3)), return_exceptions=True)

    first, second, third = asyncio.run(everything())
    assert isinstance(first, ValueError)
    assert (second, third) == ([1], [2])


def test_a_cancelled_caller_does_not_disturb_the_others():
    async def everything():
        async def call(items):
            await asyncio.sleep(0.01)
            return items

        batcher = MicroBatcher(call)
        leaver = asyncio.ensure_future(batcher.run([1]))
        stayer = asyncio.ensure_future(batcher.run([2]))
        await asyncio.sleep(0)
        leaver.cancel()
        return await stayer

    assert asyncio.run(everything()) == [2]


def test_calls_under_way_end_with_their_loop():
    async def everything():
        async def call(_):
            await asyncio.Event().wait()

        await asyncio.wait_for(MicroBatcher(call).run([1]), 0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(everything())
