"""Two workers that share a cache. Each module has its own: a worker's breaker may outlive an outage."""

import pytest

from tests.support.fixtures import require_redis
from tests.support.redis_server import RedisProcess
from tests.support.worker import WorkerProcess


@pytest.fixture(scope="module")
def cache_server():
    """A Redis that holds the cache only."""
    require_redis()
    with RedisProcess() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def workers(redis_url, ollama, cache_server):
    """Two workers that share the cache."""
    ollama.reset()
    settings = {"CACHE_URL": cache_server.url, "CACHE__TIMEOUT": 3}
    with (
        WorkerProcess(redis_url, ollama.url, **settings) as one,
        WorkerProcess(redis_url, ollama.url, **settings) as two,
    ):
        yield one, two


@pytest.fixture(autouse=True)
def cache(cache_server, double):
    """A client of the cache, which is empty and up; the backend is healthy."""
    with cache_server.client() as client:
        client.flushall()
        yield client
