"""The memory budget: work waits for room instead of failing, and holds nothing while it waits."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from citadel_common.errors import PayloadTooLarge
from citadel_common.memory import UNCOUNTED, HeldMemory, MemoryBudget, take

MIB = 2**20
SIZE = 64 * MIB


@pytest.fixture
def budget():
    return MemoryBudget(SIZE, setting="workflows.memory")


def test_a_piece_of_work_holds_what_it_takes_and_gives_it_back(budget):
    def work():
        take(10 * MIB)
        take(MIB)
        return budget.free

    assert budget.run(work) <= SIZE - 11 * MIB
    assert budget.free == SIZE


def test_what_a_piece_held_is_free_again_when_it_fails(budget):
    def work():
        take(10 * MIB)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        budget.run(work)
    assert budget.free == SIZE


def test_small_work_asks_nobody(budget):
    assert budget.run(lambda: take(UNCOUNTED) or budget.free) == SIZE


def test_outside_a_piece_nothing_is_counted():
    take(2**60)


def test_work_that_needs_more_than_there_is_fails_and_says_so(budget):
    with pytest.raises(PayloadTooLarge, match=r"67,108,865 bytes.*\(workflows.memory\).*67,108,864"):
        budget.run(lambda: take(SIZE + 1))
    assert budget.free == SIZE


def test_a_part_belongs_to_the_piece_around_it(budget):
    def whole():
        take(40 * MIB)
        budget.run(lambda: take(20 * MIB))
        return budget.free

    assert budget.run(whole) <= 4 * MIB


def test_work_without_room_waits_holding_nothing_and_begins_anew(budget):
    held, go, begun = threading.Event(), threading.Event(), []

    def first():
        take(50 * MIB)
        held.set()
        go.wait(30)

    def second():
        begun.append(budget.free)
        take(10 * MIB)
        go.set()  # reached at first only with room
        take(30 * MIB)
        return budget.free

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(budget.run, first)
        assert held.wait(30)
        other = threads.submit(budget.run, second)
        assert other.result(30) <= SIZE - 40 * MIB
        one.result(30)
    assert len(begun) == 2
    assert budget.free == SIZE


def test_many_pieces_at_once_never_hold_more_than_there_is_and_all_end(budget):
    least = []

    def work():
        for _ in range(6):
            take(5 * MIB)
            least.append(budget.free)
        return True

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(lambda _: budget.run(work), range(200)))
    assert min(least) >= 0
    assert budget.free == SIZE


def test_a_small_piece_passes_one_that_waits(budget):
    held, go = threading.Event(), threading.Event()

    def first():
        take(40 * MIB)
        held.set()
        go.wait(30)

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(budget.run, first)
        assert held.wait(30)
        large = threads.submit(budget.run, lambda: take(60 * MIB))
        while not budget.waiting:
            assert not large.done()
        assert budget.run(lambda: take(MIB) or True)
        go.set()
        one.result(30)
        large.result(30)


def test_held_memory_calls_back_who_found_no_room_in_their_order():
    memory, called = HeldMemory(10 * MIB), []
    first = memory.hold(8 * MIB, lambda: called.append("first"))
    assert memory.hold(6 * MIB, lambda: called.append("second")) is None
    assert memory.hold(9 * MIB, lambda: called.append("third")) is None
    assert called == []
    first.release()
    assert called == ["second"]
    memory.hold(6 * MIB, called.clear).release()
    assert called == ["second", "third"]


def test_what_is_held_is_given_back_once():
    memory = HeldMemory(10 * MIB)
    held = memory.hold(MIB, lambda: None)
    held.release()
    held.release()
    assert memory.free == 10 * MIB


def test_what_needs_more_than_there_is_is_let_in_alone():
    memory = HeldMemory(10 * MIB)
    assert memory.hold(100 * MIB, lambda: None) is not None
    assert memory.hold(MIB, lambda: None) is None
    assert memory.hold(UNCOUNTED, lambda: None) is not None
