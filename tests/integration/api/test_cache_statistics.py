"""What `GET /v1/cache` counts; the first requests of a new Redis, so that the counts are known."""

import httpx

from tests.integration.api.fake_worker import cache_vectors
from tests.integration.api.servers import Program, RedisServer, until


def test_hits_are_counted_once_each(http: httpx.Client, api_redis: RedisServer, worker: Program) -> None:
    """From Redis or from the process's memory; misses are counted by the worker, which looks again."""
    cache_vectors(api_redis.url, ["counted"])
    for _ in range(3):
        http.post("/v1/embeddings", json={"input": ["counted", "counted"]})
    http.post("/v1/embeddings", json={"input": ["missed", "counted"]})
    until(lambda: http.get("/v1/cache").json()["hits"] >= 7, "seven hits")
    stats = http.get("/v1/cache").json()
    assert (stats["hits"], stats["misses"], stats["hit_rate"], stats["available"]) == (7, 0, 1.0, True)
