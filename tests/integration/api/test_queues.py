"""`GET /v1/queues`: what waits in the queues, and what was sent past them."""

import httpx
import redis

from citadel_common.delivery.misrouted import MisroutedList, MisroutedLists
from tests.integration.api.servers import RedisServer

FOUND = MisroutedList(
    key="embeddings\x1b:3",
    database=0,
    queue="embeddings",
    task="generate_embedding",
    messages=4,
    moved=2,
    reason="separator",
    help="remove sep",
    at=1_800_000_000.0,
)


def test_messages_that_no_worker_reads_are_shown_with_their_queue(http: httpx.Client, api_redis: RedisServer) -> None:
    with redis.Redis.from_url(api_redis.url) as store:
        MisroutedLists(store, "scan").add(FOUND)
        store.hset("citadel:misrouted", "0:later", '{"reason": "of a later version"}')
        queues = {queue["name"]: queue for queue in http.get("/v1/queues").json()["queues"]}
    [shown] = queues["embeddings"]["misrouted"]
    assert shown == {
        "key": "embeddings\\x1b:3",
        "database": 0,
        "task": "generate_embedding",
        "messages": 4,
        "moved": 2,
        "reason": "separator",
        "help": "remove sep",
        "at": "2027-01-15T08:00:00+00:00",
    }
    assert queues["orchestration"]["misrouted"] == []
