"""Turns between runs: order, shares, and the end."""

import threading
from collections.abc import Iterator

import pytest

from citadel_orchestration.engine.fair_threads import FairThreadPool

PATIENCE = 60.0


class Log:
    """What was done, in order; acts wait until it is open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.done: list[str] = []

    def act(self, name: str) -> None:
        assert self.open.wait(PATIENCE)
        self.done.append(name)


@pytest.fixture
def log() -> Iterator[Log]:
    """A log that is open at the end, so that no thread is left behind."""
    found = Log()
    yield found
    found.open.set()


def test_keys_take_turns(log: Log) -> None:
    threads = FairThreadPool(1, per_key=1, name="t")
    for name in ("wide 1", "wide 2", "wide 3", "small 1", "small 2"):
        threads.submit(name.split()[0], log.act, name)
    log.open.set()
    threads.close(finish=True)
    assert log.done == ["wide 1", "small 1", "wide 2", "small 2", "wide 3"]


def test_one_key_has_no_more_threads_than_its_share(log: Log) -> None:
    threads = FairThreadPool(4, per_key=2, name="t")
    began = threading.Semaphore(0)

    def act() -> None:
        began.release()
        log.act("wide")

    for _ in range(10):
        threads.submit("wide", act)
    for _ in range(2):
        assert began.acquire(timeout=PATIENCE)
    small = threading.Event()
    threads.submit("small", small.set)
    assert small.wait(PATIENCE)
    assert not began.acquire(blocking=False)
    log.open.set()
    threads.close(finish=True)
    assert log.done == ["wide"] * 10


def test_calls_submitted_by_calls_are_finished(log: Log) -> None:
    threads = FairThreadPool(2, per_key=1, name="t")

    def chain(left: int) -> None:
        log.act(str(left))
        if left:
            threads.submit(left % 2, chain, left - 1)

    threads.submit("first", chain, 5)
    log.open.set()
    threads.close(finish=True)
    assert log.done == ["5", "4", "3", "2", "1", "0"]


def test_an_exception_does_not_end_other_calls(log: Log) -> None:
    threads = FairThreadPool(1, per_key=1, name="t")
    log.open.set()
    threads.submit("a", lambda: 1 / 0)
    threads.submit("a", log.act, "after")
    threads.close(finish=True)
    assert log.done == ["after"]


def test_waiting_calls_are_dropped_by_a_close_without_finish(log: Log) -> None:
    threads = FairThreadPool(1, per_key=1, name="t")
    began = threading.Event()

    def first() -> None:
        began.set()
        log.act("first")

    threads.submit("a", first)
    threads.submit("a", log.act, "second")
    assert began.wait(PATIENCE)
    closing = threading.Thread(target=lambda: threads.close(finish=False))
    closing.start()
    while True:
        try:
            threads.submit("b", log.act, "late")
        except RuntimeError:
            break
    log.open.set()
    closing.join(PATIENCE)
    assert log.done == ["first"]
