"""`citadel.purge_orphans`: removes what workers and requests left behind, and nothing else."""

import time
from typing import Any

import orjson
import pytest
import redis

from citadel_common.delivery.worker_registry import UNACKED_PREFIX, WORKERS, held_message_keys
from tests.integration.maintenance.conftest import Ask
from tests.support.celery_client import PlainClient
from tests.support.maintenance import MaintenanceProcess
from tests.support.polling import eventually

TASK = "citadel.purge_orphans"
FOREIGN = {
    "citadel:unheard-of": "x",
    "citadel:rates": "x",
    "unacked_index": "x",
    "celery-task-meta-theirs": "x",
    "somebody:else": "x",
}


def heartbeat(worker_id: str, *, age: float) -> bytes:
    """Return the last heartbeat of a worker on another machine, `age` seconds old."""
    fields: dict[str, Any] = {
        "id": worker_id,
        "queue": "embeddings",
        "host": "h",
        "pid": 1,
        "machine": "m",
        "born": "1",
    }
    counts = {"concurrency": 1, "running": 0, "processed": 0, "failed": 0}
    return orjson.dumps(fields | counts | {"started_at": 0.0, "seen_at": time.time() - age})


def test_keys_without_a_time_to_live_get_one(store: "redis.Redis", ask: Ask) -> None:
    store.set("citadel:deliveries:handed-back", -1)
    store.set("citadel:rate:alice:29", 7)
    store.set("citadel:rate:bob:29", 7, ex=5)
    foretold, report = ask(TASK, dry_run=True), ask(TASK)
    assert 0 < store.ttl("citadel:deliveries:handed-back") <= 24 * 3600
    assert 0 < store.ttl("citadel:rate:alice:29") <= 60
    assert 0 < store.ttl("citadel:rate:bob:29") <= 5
    assert (foretold["repaired"], report["repaired"], report["removed"]) == (2, 2, 0)
    assert ask(TASK)["kinds"] == {}


def test_keys_of_other_names_are_not_touched(store: "redis.Redis", ask: Ask) -> None:
    for key, value in FOREIGN.items():
        store.set(key, value)
    report = ask(TASK)
    assert {key: store.get(key) for key in FOREIGN} == dict.fromkeys(FOREIGN, b"x")
    assert all(store.ttl(key) == -1 for key in FOREIGN)
    assert (report["removed"], report["repaired"]) == (0, 0)


def test_the_index_of_a_dead_worker_is_removed(store: "redis.Redis", maintenance: MaintenanceProcess, ask: Ask) -> None:
    gone, living = "embeddings@h:1:gone", eventually(lambda: store.hkeys(WORKERS))[0].decode()
    for worker_id in (gone, living):
        store.zadd(held_message_keys(worker_id)["unacked_index_key"], {"tag": 1.0})
    report = ask(TASK)
    assert report["kinds"]["unacked_indexes"]["removed"] == 1
    assert store.exists(held_message_keys(gone)["unacked_index_key"]) == 0
    assert store.exists(held_message_keys(living)["unacked_index_key"]) == 1


def test_unreadable_entries_of_the_registry_are_removed(store: "redis.Redis", ask: Ask) -> None:
    store.hset(WORKERS, mapping={"broken": "{", "strange": "[]", "future": heartbeat("future", age=-5)})
    ask(TASK)
    left = {name.decode() for name in store.hkeys(WORKERS)}
    assert {"broken", "strange"}.isdisjoint(left)
    assert "future" in left
    store.hdel(WORKERS, "future")


@pytest.mark.usefixtures("maintenance")
def test_messages_held_by_an_unknown_worker_are_given_back(store: "redis.Redis", plain: PlainClient, ask: Ask) -> None:
    """Such a worker was forgotten while it was paused, and killed when it went on."""
    worker_id = "embeddings@h:1:unknown"
    with plain.app.connection_for_write() as connection:
        sent = plain.publish("generate_embedding", ["x"], queue="embeddings")
        [raw] = store.lrange("embeddings", 0, -1)
        store.delete("embeddings")
        del connection
    keys = held_message_keys(worker_id)
    store.hset(keys["unacked_key"], "tag", orjson.dumps([orjson.loads(raw), "", "embeddings"]))
    store.zadd(keys["unacked_index_key"], {"tag": time.time()})

    assert ask(TASK, dry_run=True)["kinds"]["messages_of_unknown_workers"]["examined"] == 1
    assert store.exists(UNACKED_PREFIX + worker_id) == 1
    ask(TASK)

    lists = ["embeddings", *(f"embeddings\x06\x16{step}" for step in (3, 6, 9))]
    [message] = eventually(lambda: [entry for name in lists for entry in store.lrange(name, 0, -1)])
    assert orjson.loads(message)["headers"]["id"] == sent.id
    assert store.exists(UNACKED_PREFIX + worker_id) == 0
    eventually(lambda: not store.hexists(WORKERS, worker_id))
