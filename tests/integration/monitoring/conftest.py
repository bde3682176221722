"""Servers for health checks, with credentials."""

import contextlib

import pytest

from tests.doubles.process import LlmProcess, OllamaProcess, QdrantProcess
from tests.integration.monitoring.watched import LLM_KEY, OLLAMA_KEY, QDRANT_KEY, REDIS_KEY, Watched
from tests.support.fixtures import require_redis
from tests.support.redis_server import RedisProcess


@pytest.fixture(scope="session")
def servers(postgres_server):
    """Yield all servers, running; a test that ends one starts it again."""
    require_redis()
    with contextlib.ExitStack() as stack:
        watched = Watched(
            broker=stack.enter_context(RedisProcess(password=REDIS_KEY)),
            cache=stack.enter_context(RedisProcess()),
            postgres=postgres_server,
            ollama=stack.enter_context(OllamaProcess(api_key=OLLAMA_KEY)),
            qdrant=stack.enter_context(QdrantProcess(api_key=QDRANT_KEY)),
            llm=stack.enter_context(LlmProcess(api_key=LLM_KEY)),
        )
        stack.callback(watched.loop.close)
        yield watched


@pytest.fixture
def watched(servers):
    """Return the servers, with the doubles reset to healthy."""
    for double in (servers.ollama, servers.qdrant, servers.llm):
        double.reset()
    return servers
