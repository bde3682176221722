"""`citadel.reroute_messages`, killed while it moves messages: none is lost, none is there twice, all are in order."""

import json
import time

import redis

from citadel_common.delivery.queues import lists_of
from citadel_contracts import Queue
from tests.support.celery_client import PlainClient
from tests.support.maintenance import MaintenanceProcess
from tests.support.polling import eventually

TASK = "citadel.reroute_messages"
THEIRS, STANDARD = "embeddings:3", lists_of(Queue.EMBEDDINGS)[1]
MESSAGES = 20_000


def ids_in(store: "redis.Redis", key: str) -> list[str]:
    """Return the ids of a list's messages, the one that is taken next first."""
    return [json.loads(entry)["headers"]["id"] for entry in reversed(store.lrange(key, 0, -1))]


def test_a_run_that_is_killed_loses_no_message_and_doubles_none(
    store: "redis.Redis", redis_url: str, dsn: str, plain: PlainClient
) -> None:
    sent = [f"{number:032x}" for number in range(MESSAGES)]
    template = plain.publish("generate_embedding", ["x"], priority=3)
    [entry] = store.lrange(STANDARD, 0, -1)
    store.delete(STANDARD)
    for start in range(0, MESSAGES, 1000):
        store.lpush(THEIRS, *[entry.replace(template.id.encode(), one.encode()) for one in sent[start : start + 1000]])
    with MaintenanceProcess(redis_url, dsn, MAINTENANCE__LEASE=1) as doomed:
        plain.publish(TASK, queue="maintenance")
        end = time.monotonic() + 60
        while not store.llen(STANDARD) and time.monotonic() < end:
            pass
        doomed.kill()
    assert 0 < store.llen(STANDARD) < MESSAGES, "it was not killed in between"
    with MaintenanceProcess(redis_url, dsn):
        eventually(lambda: plain.publish(TASK, queue="maintenance").get(timeout=60)["finished"])
    assert store.llen(THEIRS) == 0
    assert ids_in(store, STANDARD) == sent
