"""`citadel.reroute_messages`: messages of other Celery clients come into the right lanes, or are reported."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from celery import Celery

from citadel_common.delivery import misrouted
from citadel_common.delivery.misrouted import MISROUTED, MisroutedList
from citadel_common.delivery.queues import lists_of
from citadel_contracts import Queue as OurQueue
from citadel_maintenance.rerouting.lists import Lists
from tests.integration.maintenance.conftest import Ask
from tests.support.maintenance import MaintenanceProcess

TASK = "citadel.reroute_messages"
GENERATE = "generate_embedding"
INTERACTIVE, STANDARD, BATCH, _ = lists_of(OurQueue.EMBEDDINGS)
MOVED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "another separator": ("separator", {"sep": ":"}, {}),
    "a long separator": ("separator", {"sep": "##"}, {}),
    "ten steps": ("priority_steps", {"priority_steps": list(range(10))}, {}),
    "two steps": ("priority_steps", {"priority_steps": [0, 5]}, {}),
    "no step for 0": ("priority_steps", {"priority_steps": [1, 2, 7]}, {}),
    "both": ("separator", {"sep": ":", "priority_steps": list(range(10))}, {}),
    "the first protocol": ("separator", {"sep": ":"}, {"task_protocol": 1}),
    "the first protocol, compressed": ("separator", {"sep": ":"}, {"task_protocol": 1, "task_compression": "gzip"}),
}
"""Reason, transport options and other settings of a client."""


@pytest.fixture(autouse=True)
def empty(store: "redis.Redis", maintenance: MaintenanceProcess) -> Iterator[None]:
    """Leave the test's lists to no other test."""
    yield
    for key in (MISROUTED.encode(), *store.scan_iter(_type="list")):
        store.delete(key)


@contextmanager
def client(url: str, options: dict[str, Any], settings: dict[str, Any] | None = None) -> Iterator[Celery]:
    """Give a Celery client with these transport options and settings."""
    app = Celery("foreign", broker=url, set_as_current=False)
    app.conf.update({"broker_transport_options": options} | (settings or {}))
    yield app
    app.close()


def ids_in(store: "redis.Redis", key: str) -> list[str]:
    """Return the ids of a list's messages, the one that is taken next first."""
    return [_id_of(json.loads(entry)) for entry in reversed(store.lrange(key, 0, -1))]


def _id_of(message: dict[str, Any]) -> str:
    return str(message["properties"]["correlation_id"])


def findings(store: "redis.Redis") -> list[MisroutedList]:
    """Return the stored findings."""
    return misrouted.parse(store.hvals(MISROUTED))


@pytest.mark.parametrize(("reason", "options", "settings"), MOVED.values(), ids=MOVED)
def test_messages_in_lists_that_nobody_reads_come_into_their_lanes_in_order(
    store: "redis.Redis",
    redis_url: str,
    ask: Ask,
    reason: str,
    options: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    sent: dict[str, list[str]] = {INTERACTIVE: [], STANDARD: [], BATCH: []}
    with client(redis_url, options, settings) as app:
        for number in range(120):
            for lane, priority in ((INTERACTIVE, 2), (STANDARD, 5), (BATCH, 8)):
                task = app.send_task(
                    GENERATE, [f"{number}"], queue="embeddings", routing_key="emb.x", priority=priority
                )
                sent[lane].append(task.id)
    misplaced = 360 - sum(len(ids_in(store, lane)) for lane in (INTERACTIVE, STANDARD, BATCH))
    assert misplaced > 0
    foretold, report = ask(TASK, dry_run=True), ask(TASK)
    assert (foretold["repaired"], report["repaired"]) == (misplaced, misplaced)
    assert report["kinds"].keys() == {reason}
    assert {lane: ids_in(store, lane) for lane in sent} == sent
    for found in findings(store):
        assert (found.reason, found.queue, found.messages, found.task) == (reason, "embeddings", 0, GENERATE)
        assert found.moved > 0
    assert ask(TASK)["kinds"] == {}
    assert sum(found.moved for found in findings(store)) == misplaced, "it stays visible that the client is wrong"


def test_a_message_goes_into_the_lane_of_its_priority(store: "redis.Redis", redis_url: str, ask: Ask) -> None:
    lanes = dict.fromkeys((0, 2), INTERACTIVE) | dict.fromkeys((3, 5), STANDARD) | dict.fromkeys((6, 8), BATCH)
    with client(redis_url, {"priority_steps": [1]}) as app:
        sent = {n: app.send_task(GENERATE, ["x"], queue="embeddings", priority=n).id for n in lanes}
    assert ask(TASK)["repaired"] == len(sent)
    assert {n: lane for n in sent for lane in set(lanes.values()) if sent[n] in ids_in(store, lane)} == lanes


FOREIGN_LISTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a queue of the client's own": ("celery", {"queue": "celery"}),
    "a queue with a number in its name": ("embeddings:2", {"queue": "embeddings:2"}),
    "a queue with a version in its name": ("embeddings-v2", {"queue": "embeddings-v2"}),
    "a typo": ("embedings", {"queue": "embedings"}),
}


@pytest.mark.parametrize(("key", "how"), FOREIGN_LISTS.values(), ids=FOREIGN_LISTS)
def test_tasks_of_our_names_in_another_queue_are_reported_and_not_touched(
    store: "redis.Redis", redis_url: str, ask: Ask, key: str, how: dict[str, Any]
) -> None:
    with client(redis_url, {}) as app:
        app.send_task(GENERATE, ["x"], **how)
    before = store.lrange(key, 0, -1)
    assert ask(TASK)["repaired"] == 0
    assert store.lrange(key, 0, -1) == before
    [found] = findings(store)
    assert (found.key, found.reason, found.queue, found.messages, found.moved) == (key, "queue", "embeddings", 1, 0)
    assert f"{key!r}" in found.help
    assert "queue='embeddings'" in found.help
    assert ("may be a typo" in found.help) == (key == "embedings")
    store.delete(key)
    ask(TASK)
    assert findings(store) == [], "what is gone is reported no more"


def test_a_prefix_of_all_keys_is_reported_and_its_lists_are_not_touched(
    store: "redis.Redis", redis_url: str, ask: Ask
) -> None:
    with client(redis_url, {"global_keyprefix": "shop-"}) as app:
        for priority in (0, 3):
            app.send_task(GENERATE, ["x"], queue="embeddings", priority=priority)
    assert ask(TASK)["repaired"] == 0
    keys = ["shop-embeddings", "shop-embeddings\x06\x163"]
    assert [store.llen(key) for key in keys] == [1, 1]
    assert {(one.key, one.reason) for one in findings(store)} == {(key, "key_prefix") for key in keys}
    assert all("global_keyprefix='shop-'" in one.help for one in findings(store))


def test_messages_in_another_database_are_reported(store: "redis.Redis", redis_url: str, ask: Ask) -> None:
    elsewhere = f"{redis_url.rsplit('/', 1)[0]}/5"
    with client(elsewhere, {}) as app:
        app.send_task(GENERATE, ["x"], queue="embeddings")
    other = redis.Redis.from_url(elsewhere)
    try:
        ask(TASK)
        [found] = findings(store)
        assert (found.key, found.database, found.reason, found.messages) == ("embeddings", 5, "database", 1)
        assert "names database 5, and Citadel's names 0" in found.help
        other.hset("citadel:workers", "x", "{}")
        ask(TASK)
        assert findings(store) == [], "a database with workers of its own is another Citadel's"
        assert other.llen("embeddings") == 1
    finally:
        other.flushdb()
        other.close()


def test_lists_of_other_programs_are_not_touched(store: "redis.Redis", redis_url: str, ask: Ask) -> None:
    with client(redis_url, {}) as app:
        app.send_task("their.task", ["x"], queue="embeddings:4")
        app.send_task(GENERATE, ["x"], queue="theirs")
    [theirs] = store.lrange("embeddings:4", 0, -1)
    [ours] = store.lrange("theirs", 0, -1)
    store.delete("theirs")
    others = {
        "embeddings:3": [b"a", b"{}", b"[]", b"5", b"\xff"],
        "embeddings:4": [theirs],
        "embeddings\x06\x165": [b"garbage"],
        "archive": [b"x", b'{"headers": {"task": "generate_embedding"}}'],
        "numbers": [b"1", b"2"],
    }
    for key, entries in others.items():
        if entries != [theirs]:
            store.rpush(key, *entries)
    store.rpush(b"embeddings:\xff", ours)
    assert ask(TASK)["kinds"] == {}
    assert {key: store.lrange(key, 0, -1) for key in others} == others
    assert store.llen(b"embeddings:\xff") == 1


def test_of_a_mixed_list_only_what_is_ours_is_moved(store: "redis.Redis", redis_url: str, ask: Ask) -> None:
    with client(redis_url, {"sep": ":"}) as app:
        sent = []
        for number in range(70):
            sent.append(app.send_task(GENERATE, ["x"], queue="embeddings", priority=3).id)
            app.send_task("their.task", ["x"], queue="embeddings", priority=3)
            store.lpush("embeddings:3", f"note {number}")
    assert ask(TASK)["repaired"] == 70
    assert ids_in(store, STANDARD) == sent
    left = store.lrange("embeddings:3", 0, -1)
    assert [entry for entry in left if entry.startswith(b"note")] == [f"note {n}".encode() for n in reversed(range(70))]
    assert len(left) == 140


@pytest.mark.parametrize("refusal", ["a full Redis", "a lane of another type"])
def test_what_redis_refuses_to_move_stays_and_is_moved_later(
    store: "redis.Redis", redis_url: str, ask: Ask, refusal: str
) -> None:
    with client(redis_url, {"sep": ":"}) as app:
        sent = [app.send_task(GENERATE, ["x"], queue="embeddings", priority=3).id for _ in range(60)]
    if refusal == "a lane of another type":
        store.set(STANDARD, "x")
        assert "WRONGTYPE" in ask(TASK)["notes"][0]
        store.delete(STANDARD)
    else:
        lists = Lists(store)
        store.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.ResponseError, match=r"OOM|oom|maxmemory"):
                lists.move("embeddings:3", lists.oldest("embeddings:3"), [STANDARD] * 50, OurQueue.EMBEDDINGS, skip=0)
        finally:
            store.config_set("maxmemory", 0)
    assert (ids_in(store, "embeddings:3"), store.llen(STANDARD)) == (sent, 0)
    assert ask(TASK)["repaired"] == 60
    assert ids_in(store, STANDARD) == sent


def test_a_scan_that_is_cut_off_goes_on_in_the_next_run(store: "redis.Redis", redis_url: str, ask: Ask) -> None:
    keys = {f"celery-task-meta-{number}": "x" for number in range(60_000)}
    store.mset(keys)
    with client(redis_url, {"sep": ":"}) as app:
        app.send_task(GENERATE, ["x"], queue="embeddings", priority=3)
    runs = 1
    while not ask(TASK, time_limit=0.004)["finished"]:
        runs += 1
    assert runs > 1, "one run was enough"
    assert store.llen(STANDARD) == 1
    store.delete(*keys)
