"""The thread that checks run on: how calls end that do not end by themselves."""

import asyncio
import threading

import pytest

from citadel_common.errors import DeadlineExceeded
from citadel_common.tasks.failure_policy import HandBack
from citadel_monitoring import loop as loop_module
from citadel_monitoring.loop import LoopThread


@pytest.fixture
def loop():
    """A loop of the test's own."""
    thread = LoopThread()
    yield thread
    thread.close()


async def forever(begun):
    begun.set()
    await asyncio.Event().wait()


def test_a_call_gives_its_result(loop):
    async def seven():
        return 7

    assert loop.result_of(loop.begin(seven()), 60) == 7


def test_an_interrupted_call_is_handed_back(loop):
    begun = threading.Event()
    call = loop.begin(forever(begun))
    assert begun.wait(60)
    loop.interrupt()
    with pytest.raises(HandBack):
        loop.result_of(call, 60)


def test_a_call_that_never_ends_is_given_up(loop, monkeypatch):
    monkeypatch.setattr(loop_module, "MARGIN", 0.05)
    begun = threading.Event()
    call = loop.begin(forever(begun))
    assert begun.wait(60)
    with pytest.raises(DeadlineExceeded):
        loop.result_of(call, 0)
    assert call.cancelled()


def test_nothing_runs_once_it_is_closed():
    threads = threading.active_count()
    loop, begun = LoopThread(), threading.Event()
    call = loop.begin(forever(begun))
    assert begun.wait(60)
    loop.close()
    assert call.cancelled()
    assert threading.active_count() == threads
