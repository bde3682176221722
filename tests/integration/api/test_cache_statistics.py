"""`GET /v1/cache`. The module's Redis is new, so that the counts are known."""

import httpx

from tests.integration.api.fake_worker import cache_vectors
from tests.integration.api.servers import Program, RedisServer, until


def test_each_hit_is_counted_once(http: httpx.Client, api_redis: RedisServer, worker: Program) -> None:
    """Hits come from Redis or the process's memory. The worker, which looks again, counts the misses."""
    cache_vectors(api_redis.url, ["counted"])
    for _ in range(3):
        http.post("/v1/embeddings", json={"input": ["counted", "counted"]})
    http.post("/v1/embeddings", json={"input": ["missed", "counted"]})
    until(lambda: http.get("/v1/cache").json()["hits"] >= 7, "seven hits")
    stats = http.get("/v1/cache").json()
    assert (stats["hits"], stats["misses"], stats["hit_rate"], stats["available"]) == (7, 0, 1.0, True)
