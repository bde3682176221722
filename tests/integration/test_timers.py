"""The timers of a queue on a real Redis: an entry is held, waits, or lies in its lane, and never in two of them."""

import time

import pytest

from citadel_common.delivery.entries import held_suffix
from citadel_common.delivery.queues import STEPS, lists_of, timers_prefix
from citadel_common.delivery.timers import BATCH, MOST_BYTES, Timers, WaitingTask, remove_waiting
from citadel_contracts import Queue

QUEUE = Queue.EMBEDDINGS
PREFIX = timers_prefix(QUEUE)
HELD, INDEX = "citadel:unacked:w", "citadel:unacked:w:index"


@pytest.fixture
def timers(store):
    store.flushall()
    return Timers(store, QUEUE)


def task(task_id, *, after=3600.0, expires=None, tag=None, step=0):
    """A task whose time is `after` seconds from now, as a worker has read it."""
    now = time.time()
    limit = None if expires is None else now + expires
    return WaitingTask(task_id=task_id, tag=tag or f"tag of {task_id}", step=step, eta=now + after, expires=limit)


def hold(store, *tasks, size=0):
    for held in tasks:
        store.hset(HELD, held.tag, f"[{held.task_id} {'x' * size}{held_suffix(QUEUE.value)}")
        store.zadd(INDEX, {held.tag: 1})


def park(store, timers, *tasks, size=0):
    """Let tasks wait that a worker holds."""
    hold(store, *tasks, size=size)
    assert {timers.wait(one, HELD, INDEX) for one in tasks} == {"waits"}


def let_come(store, *names, lane=0):
    """Set their times to the past, in this order."""
    for position, name in enumerate(names):
        store.zadd(f"{PREFIX}{lane}", {name: 1000 + position}, xx=True)


def lane(store, step=0):
    """The messages of a lane, the one that is taken next first."""
    entries = store.lrange(lists_of(QUEUE)[STEPS.index(step)], 0, -1)
    return [entry.decode().strip() for entry in reversed(entries)]


def test_a_message_whose_time_has_not_come_waits_and_is_no_longer_held(store, timers):
    park(store, timers, task("a"))
    assert not store.exists(HELD, INDEX)
    released = timers.release()
    assert released.moved == 0
    assert 3590 < released.pause <= 3600
    assert not any(store.exists(name) for name in lists_of(QUEUE))


@pytest.mark.parametrize("after", [0.0, -1.0, -1e9], ids=["now", "a second ago", "before the epoch"])
def test_a_message_whose_time_has_come_stays_held(store, timers, after):
    due = task("a", after=after)
    hold(store, due)
    assert timers.wait(due, HELD, INDEX) == "due"
    assert store.hexists(HELD, due.tag)
    assert not store.keys(f"{PREFIX}*")


def test_a_message_that_another_worker_has_taken_over_does_not_wait(store, timers):
    assert timers.wait(task("a"), HELD, INDEX) == "lost"
    assert not store.keys(f"{PREFIX}*")


def test_an_expired_message_does_not_wait_for_its_time(store, timers):
    expired, expires_first = task("a", expires=-1), task("b", after=1e9, expires=0.2)
    hold(store, expired, expires_first)
    assert timers.wait(expired, HELD, INDEX) == "expired"
    assert timers.wait(expires_first, HELD, INDEX) == "waits"
    assert timers.release().pause <= 0.2


@pytest.mark.parametrize("years", [1, 100, 7000])
def test_any_length_of_countdown_waits(store, timers, years):
    park(store, timers, task("a", after=years * 365 * 86400.0))
    assert timers.release().pause > (years - 1) * 365 * 86400
    assert not lane(store)


def test_what_is_due_goes_to_its_lane_the_earliest_first(store, timers):
    park(store, timers, *(task(name) for name in "abc"), *(task(f"batch {name}", step=9) for name in "xy"))
    store.lpush(QUEUE.value, "sent meanwhile")
    let_come(store, "b", "c", "a")
    let_come(store, "batch y", "batch x", lane=9)
    assert timers.release().moved == 5
    assert lane(store) == ["b", "c", "a", "sent meanwhile"]
    assert lane(store, 9) == ["batch y", "batch x"]
    assert store.keys(f"{PREFIX}*") == [f"{PREFIX}released".encode()]


def test_a_batch_is_released_after_the_one_before_it_is_taken(store, timers):
    """So the earliest are taken first, however many are due; a lane never holds more than a batch of them."""
    names = [f"{n:04}" for n in range(3 * BATCH)]
    park(store, timers, *map(task, names))
    let_come(store, *names)
    taken = []
    assert timers.release().moved == BATCH
    while timers.release().moved or store.llen(QUEUE.value):
        assert store.llen(QUEUE.value) <= BATCH
        taken.append(store.rpop(QUEUE.value).decode().strip())
    assert taken == names
    assert timers.release().pause is None


def test_large_messages_are_released_in_small_batches(store, timers):
    names = [f"{n:02}" for n in range(10)]
    park(store, timers, *map(task, names), size=MOST_BYTES // 2)
    let_come(store, *names)
    assert timers.release().moved == 2
    assert [entry[:2] for entry in lane(store)] == ["00", "01"]


def test_a_released_message_that_is_given_back_still_keeps_the_next_batch_waiting(store, timers):
    names = [f"{n:04}" for n in range(BATCH + 1)]
    park(store, timers, *map(task, names))
    let_come(store, *names)
    timers.release()
    entries = [store.rpop(QUEUE.value) for _ in range(BATCH)]
    store.rpush(QUEUE.value, entries[-1])
    assert timers.release().moved == 0
    store.rpop(QUEUE.value)
    assert timers.release().moved == 1


def test_two_messages_with_one_task_id_both_wait(store, timers):
    park(store, timers, task("a", tag="1"), task("a", tag="2", step=9), task("b"))
    let_come(store, "a")
    let_come(store, "a\x1f2", lane=9)
    assert timers.release().moved == 2
    assert (len(lane(store)), len(lane(store, 9))) == (1, 1)
    assert not store.keys(f"{PREFIX}*same-id*")


def test_messages_of_a_task_are_removed_by_its_id(store, timers):
    park(store, timers, task("a", tag="1"), task("a", tag="2", step=6), task("b"))
    park(store, Timers(store, Queue.MAINTENANCE), task("c"))
    assert remove_waiting(store, ["a", "c", "unknown"]) == 3
    assert remove_waiting(store, ["a"]) == 0
    let_come(store, "b")
    assert timers.release().moved == 1


def test_a_lane_of_a_wrong_type_keeps_its_timers_and_no_others(store, timers):
    park(store, timers, task("a"), task("b", step=3))
    let_come(store, "a")
    let_come(store, "b", lane=3)
    store.set(QUEUE.value, "not a list")
    assert timers.release().moved == 1
    store.delete(QUEUE.value)
    assert timers.release().moved == 1


def test_timers_move_while_the_server_is_full(store, timers):
    """Nothing else can be written then; a move needs nothing in sum."""
    park(store, timers, task("a"))
    let_come(store, "a")
    second = task("b")
    hold(store, second, size=100_000)
    store.config_set("maxmemory", 1)
    try:
        assert timers.wait(second, HELD, INDEX) == "waits"
        assert timers.release().moved == 1
    finally:
        store.config_set("maxmemory", 0)
    assert not store.exists(HELD)


def test_an_entry_whose_message_is_gone_is_dropped(store, timers):
    park(store, timers, task("a"), task("b"))
    let_come(store, "a", "b")
    store.hdel(f"{PREFIX}messages", "a")
    assert timers.release().moved == 1
    assert timers.release().pause is None
