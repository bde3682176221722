"""`citadel.purge_orphans` mends timers that an eviction or an operator has torn apart."""

import json

import pytest
import redis

from citadel_common.delivery.queues import lists_of, timer_keys
from citadel_common.delivery.timers import messages_key
from citadel_contracts import Queue
from tests.integration.maintenance.conftest import Ask

TASK = "citadel.purge_orphans"
QUEUE = Queue.EMBEDDINGS
MESSAGE = json.dumps({"body": "", "headers": {"id": "lost"}, "properties": {"priority": 6, "delivery_tag": "t"}})


@pytest.fixture(autouse=True)
def empty(store: "redis.Redis") -> None:
    store.delete(messages_key(QUEUE), *timer_keys(QUEUE), *lists_of(QUEUE))


def test_a_message_without_a_due_time_is_due_now(store: "redis.Redis", ask: Ask) -> None:
    store.hset(messages_key(QUEUE), mapping={"lost": MESSAGE, "waits": MESSAGE})
    store.zadd(timer_keys(QUEUE)[0], {"waits": 9e9})
    foretold, report = ask(TASK, dry_run=True), ask(TASK)
    assert foretold["kinds"]["timers_without_time"]["repaired"] == 1
    assert report["kinds"]["timers_without_time"]["repaired"] == 1
    [(name, due)] = store.zrange(timer_keys(QUEUE)[2], 0, -1, withscores=True)
    assert (name, due <= store.time()[0]) == (b"lost", True)
    assert store.zscore(timer_keys(QUEUE)[0], "waits") == 9e9
    assert "timers_without_time" not in ask(TASK)["kinds"]


def test_a_due_time_without_a_message_is_removed(store: "redis.Redis", ask: Ask) -> None:
    store.hset(messages_key(QUEUE), "waits", MESSAGE)
    store.zadd(timer_keys(QUEUE)[3], {"waits": 9e9, "gone": 9e9})
    foretold, report = ask(TASK, dry_run=True), ask(TASK)
    assert foretold["kinds"]["timers_without_message"]["removed"] == 1
    assert report["kinds"]["timers_without_message"]["removed"] == 1
    assert store.zrange(timer_keys(QUEUE)[3], 0, -1) == [b"waits"]


def test_timers_that_fit_together_stay_as_they_are(store: "redis.Redis", ask: Ask) -> None:
    names = {f"t{n}": 9e9 + n for n in range(2000)}
    store.hset(messages_key(QUEUE), mapping=dict.fromkeys(names, MESSAGE))
    store.zadd(timer_keys(QUEUE)[1], names)
    report = ask(TASK)
    assert report["examined"] >= 2 * len(names)
    assert report["kinds"] == {}
    assert store.zcard(timer_keys(QUEUE)[1]) == len(names)
