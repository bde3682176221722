"""The event loop in a thread of its own: how calls end, and how the loop does."""

import asyncio
import contextvars
import threading

import pytest
import uvloop

from citadel_common.deadline import Deadline
from citadel_common.errors import DeadlineExceeded
from citadel_common.loop_thread import LoopThread
from citadel_common.tasks.failure_policy import HandBack

MARGIN = 0.05
VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("variable")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def loop(request):
    """A loop of the test's own."""
    thread = LoopThread("test", loop_factory=request.param, margin=MARGIN)
    yield thread
    thread.close()


def later():
    return Deadline.after(60)


async def seven():
    return 7


async def fail():
    raise ZeroDivisionError


class Endless:
    """A coroutine that ends only when it is cancelled."""

    def __init__(self):
        self.begun, self.cancelled = threading.Event(), threading.Event()

    async def run(self):
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


@pytest.fixture
def endless(loop):
    """An endless coroutine under way, and its call."""
    endless = Endless()
    call = loop.submit(endless.run())
    assert endless.begun.wait(60)
    return endless, call


def test_a_call_returns_its_result(loop):
    assert loop.call(seven(), later()) == 7


def test_a_result_can_be_read_twice(loop):
    call = loop.submit(seven())
    assert [loop.result(call, later()), loop.result(call, later())] == [7, 7]


def test_an_error_of_the_coroutine_reaches_the_caller(loop):
    with pytest.raises(ZeroDivisionError):
        loop.call(fail(), later())


def test_a_coroutine_runs_in_its_callers_context(loop):
    async def read():
        return VARIABLE.get()

    VARIABLE.set(3)
    assert loop.call(read(), later()) == 3


def test_calls_of_many_threads_all_end(loop):
    results = []

    async def echo(number):
        await asyncio.sleep(0)
        return number

    def run(number):
        results.append(loop.call(echo(number), later()))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(50))


def test_the_end_of_a_call_is_reported_with_its_task(loop):
    ended, outcomes = threading.Event(), []

    def on_end(task):
        outcomes.append((task.result(), threading.current_thread().name))
        ended.set()

    loop.submit(seven(), on_end)
    assert ended.wait(60)
    assert outcomes == [(7, "test")]


def test_a_cancelled_call_is_handed_back(loop, endless):
    _, call = endless
    call.cancel()
    with pytest.raises(HandBack):
        loop.result(call, later())


def test_a_call_that_is_cancelled_at_once_ends(loop):
    call = loop.submit(Endless().run())
    call.cancel()
    with pytest.raises(HandBack):
        loop.result(call, later())


def test_an_interrupt_hands_back_calls_under_way_and_calls_to_come(loop, endless):
    _, call = endless
    loop.interrupt()
    with pytest.raises(HandBack):
        loop.result(call, later())
    with pytest.raises(HandBack):
        loop.call(Endless().run(), later())


def test_a_call_past_its_deadline_is_cancelled(loop, endless):
    running, call = endless
    with pytest.raises(DeadlineExceeded):
        loop.result(call, Deadline.after(0))
    assert running.cancelled.wait(60)


def test_a_closed_loop_has_ended_its_thread_and_its_calls():
    threads = threading.active_count()
    loop, endless = LoopThread("test"), Endless()
    call = loop.submit(endless.run())
    assert endless.begun.wait(60)
    loop.close()
    with pytest.raises(HandBack):
        loop.result(call, later())
    assert threading.active_count() == threads


def test_the_last_coroutine_runs_before_the_other_calls_are_cancelled():
    loop, endless, seen = LoopThread("test"), Endless(), []
    loop.submit(endless.run())
    assert endless.begun.wait(60)

    async def last():
        seen.append(endless.cancelled.is_set())

    loop.close(last)
    assert seen == [False]
    assert endless.cancelled.is_set()


@pytest.mark.parametrize("last", [Endless().run, fail])
def test_a_last_coroutine_that_hangs_or_fails_keeps_no_thread(last):
    threads = threading.active_count()
    LoopThread("test", margin=MARGIN).close(last)
    assert threading.active_count() == threads
