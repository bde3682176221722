"""The timers of a queue on a real Redis: an entry is held, waits, or lies in its lane, and never in two of them."""

import time

import pytest

from citadel_common.delivery.queues import list_for, lists_of
from citadel_common.delivery.timers import BATCH, PREFIX, Timers, WaitingTask
from citadel_contracts import Queue

QUEUE = Queue.EMBEDDINGS
HELD, INDEX = "citadel:unacked:w", "citadel:unacked:w:index"


@pytest.fixture
def timers(store):
    store.flushall()
    return Timers(store, QUEUE)


def task(task_id, *, after=3600.0, expires=None, tag=None, priority=None, message=None):
    """A task whose time is `after` seconds from now, as a worker has read it."""
    now = time.time()
    tag = tag or f"tag of {task_id}"
    return WaitingTask(
        task_id=task_id,
        tag=tag,
        lane=list_for(QUEUE, priority),
        message=message or f'{{"id": "{task_id}", "tag": "{tag}"}}',
        eta=now + after,
        expires=None if expires is None else now + expires,
    )


def hold(store, *tasks):
    for held in tasks:
        store.hset(HELD, held.tag, "as kombu holds it")
        store.zadd(INDEX, {held.tag: 1})


def park(store, timers, *tasks):
    """Let these wait, and then let their time come: their scores are set to the past, in order."""
    hold(store, *tasks)
    assert {timers.wait(one, HELD, INDEX) for one in tasks} == {"waits"}


def let_come(store, *names, lane=0):
    for position, name in enumerate(names):
        store.zadd(f"{PREFIX}{QUEUE.value}:{lane}", {name: 1000 + position}, xx=True)


def lane(store, priority=None):
    """The messages of a lane, the one that is taken next first."""
    return [entry.decode() for entry in reversed(store.lrange(list_for(QUEUE, priority), 0, -1))]


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
    park(store, timers, *(task(name) for name in "abc"), *(task(f"batch {name}", priority=9) for name in "xy"))
    store.lpush(QUEUE.value, "sent meanwhile")
    let_come(store, "b", "c", "a")
    let_come(store, "batch y", "batch x", lane=9)
    assert timers.release().moved == 5
    assert ["b", "c", "a", "sent meanwhile"] == [entry[8:9] if "tag" in entry else entry for entry in lane(store)]
    assert ["batch y", "batch x"] == [entry[8:15] for entry in lane(store, 9)]
    assert store.keys(f"{PREFIX}*") == [f"{PREFIX}{QUEUE.value}:released".encode()]


def test_a_batch_is_released_after_the_one_before_it_is_taken(store, timers):
    """So the earliest are taken first, however many are due; a lane never holds more than a batch of them."""
    names = [f"{n:04}" for n in range(3 * BATCH)]
    park(store, timers, *map(task, names))
    let_come(store, *names)
    taken = []
    assert timers.release().moved == BATCH
    while timers.release().moved or store.llen(QUEUE.value):
        assert store.llen(QUEUE.value) <= BATCH
        taken.append(store.rpop(QUEUE.value).decode()[8:12])
    assert taken == names
    assert timers.release().pause is None


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


def test_one_message_that_arrives_twice_waits_once(store, timers):
    park(store, timers, task("a", tag="1"))
    park(store, timers, task("a", tag="1"))
    let_come(store, "a")
    assert timers.release().moved == 1


def test_two_messages_with_one_task_id_both_wait(store, timers):
    park(store, timers, task("a", tag="1"), task("a", tag="2", priority=9), task("b"))
    let_come(store, "a")
    let_come(store, "a\x1f2", lane=9)
    assert timers.release().moved == 2
    assert (len(lane(store)), len(lane(store, 9))) == (1, 1)
    assert not store.keys(f"{PREFIX}*same-id*")


def test_two_tasks_with_one_delivery_tag_both_wait(store, timers):
    park(store, timers, task("a", tag="1"))
    park(store, timers, task("b", tag="1"))
    let_come(store, "a", "b")
    assert timers.release().moved == 2


def test_messages_of_a_task_are_removed_by_its_id(store, timers):
    park(store, timers, task("a", tag="1"), task("a", tag="2", priority=6), task("b"))
    assert sorted(timers.remove("a")) == [b'{"id": "a", "tag": "1"}', b'{"id": "a", "tag": "2"}']
    assert timers.remove("a") == []
    let_come(store, "b")
    assert timers.release().moved == 1


def test_a_lane_of_a_wrong_type_keeps_its_timers_and_no_others(store, timers):
    park(store, timers, task("a"), task("b", priority=3))
    let_come(store, "a")
    let_come(store, "b", lane=3)
    store.set(QUEUE.value, "not a list")
    assert timers.release().moved == 1
    store.delete(QUEUE.value)
    assert timers.release().moved == 1


def test_timers_move_while_the_server_is_full(store, timers):
    """Nothing else can be written then; a move needs nothing in sum."""
    first, second = task("a", message="x" * 100_000), task("b", message="y" * 100_000)
    park(store, timers, first)
    let_come(store, "a")
    hold(store, second)
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
    store.hdel(f"{PREFIX}{QUEUE.value}:messages", "a")
    assert timers.release().moved == 1
    assert timers.release().pause is None
