"""Fixtures for every test that talks to a real Redis or PostgreSQL."""

from collections.abc import Iterator

import pytest
import redis

from citadel_client.dev.cluster import Programs
from citadel_client.dev.errors import NoPostgres
from citadel_common.delivery.dead_letters import KEYS, DeadLetters
from citadel_common.outbound import public_context
from tests.doubles.process import OllamaProcess
from tests.support.celery_client import PlainClient
from tests.support.fleet import Fleet, open_fleet
from tests.support.postgres_server import PostgresProcess
from tests.support.redis_server import RedisProcess, redis_binary
from tests.support.required import lacking
from tests.support.worker import WorkerProcess


def require_redis() -> None:
    """Skip where there is no Redis server; fail in CI, where one must be."""
    if redis_binary() is None:
        lacking("no redis-server: neither embedded in this environment nor on PATH")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisProcess]:
    """Run the Redis server of this test process."""
    require_redis()
    with RedisProcess() as server:
        yield server


@pytest.fixture(scope="module")
def redis_url(redis_server: RedisProcess) -> str:
    """Return the URL of the Redis server, which is empty when a module begins."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="module")
def store(redis_server: RedisProcess, redis_url: str) -> Iterator["redis.Redis"]:
    """Give a client of the Redis server."""
    with redis_server.client() as client:
        yield client


def require_postgres() -> None:
    """Skip where there is no PostgreSQL; fail in CI, where one must be."""
    try:
        Programs.find()
    except NoPostgres as error:
        lacking(str(error))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresProcess]:
    """Run the PostgreSQL server of this test process."""
    require_postgres()
    with PostgresProcess() as server:
        yield server


@pytest.fixture
def postgres_dsn(postgres_server: PostgresProcess) -> Iterator[str]:
    """Give the URL of a database for this test alone, migrated and without rows."""
    with postgres_server.database() as dsn:
        yield dsn


@pytest.fixture
def dead_letters(store: "redis.Redis") -> DeadLetters:
    """Return the store of dead letters, emptied."""
    store.delete(*KEYS)
    return DeadLetters(store, ttl=3600)


@pytest.fixture(scope="session")
def ollama() -> Iterator[OllamaProcess]:
    """Run a double of Ollama; tests use `double`, which is reset for each of them."""
    with OllamaProcess(slots=4) as process:
        yield process


@pytest.fixture
def double(ollama: OllamaProcess) -> OllamaProcess:
    """Return the double of Ollama, healthy and with nothing counted."""
    ollama.reset()
    return ollama


@pytest.fixture(scope="module")
def worker(redis_url: str, ollama: OllamaProcess) -> Iterator[WorkerProcess]:
    """Run a worker that the tests of a module share."""
    ollama.reset()
    with WorkerProcess(redis_url, ollama.url) as process:
        yield process


@pytest.fixture(scope="module")
def plain(redis_url: str) -> Iterator[PlainClient]:
    """Give a plain Celery client."""
    with PlainClient(redis_url) as client:
        yield client


@pytest.fixture
def fleet(redis_server: RedisProcess, double: OllamaProcess) -> Iterator[Fleet]:
    """Give a fleet for this test alone, on an empty Redis."""
    with open_fleet(redis_server, double) as fleet:
        yield fleet


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave no proxies and certificates but those that a test names."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    public_context.cache_clear()
    yield
    public_context.cache_clear()
